//! `hawkgate token`: prints or serves the current access token, refreshed when it is about to
//! expire. A rotated refresh token is on disk before anything is printed, and a file lock keeps
//! concurrent invocations from using the same refresh token twice.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use hawkgate::clock::SharedClock;
use hawkgate::private_file::state::PersistentState as _;
use hawkgate::private_file::{LockedFile, PrivateFile};
use hawkgate::remote::discovery::DiscoveryFetcher;
use hawkgate::remote::http_client::HttpClient;
use hawkgate::remote::signin::SignInClient;
use hawkgate::remote::token_socket;
use hawkgate::secret::SecretString;
use hawkgate::signin::{Session, Tokens};
use hawkgate::token::{Expected, IdTokenError, IdTokenVerifier, TokenError};

use super::exit::{CommandError, exit_code, failed, print, status, usage};
use super::issuer::{self, on_lock_wait};
use super::token_file::TokenFile;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    hawkgate token --header | curl -H @- http://127.0.0.1:8080/api/auth/v1/scopes/current\n  \
    TOKEN=$(hawkgate token)                          # for programs that read a variable\n  \
    hawkgate token --serve \"$XDG_RUNTIME_DIR/hawkgate/token.sock\" &\n  \
    curl -s --unix-socket \"$XDG_RUNTIME_DIR/hawkgate/token.sock\" http://localhost/token\n\n\
    A token that is about to expire is refreshed first, and the new tokens are saved before \
    anything is printed. Printing to a terminal needs --show.\n\n\
    Exit codes: 0 success, 1 not signed in or refresh failed, 2 usage error.";

#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(flatten)]
    tokens: TokenFile,
    /// Refresh the token if it expires within this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    valid_for: u64,
    /// Print an "Authorization: Bearer …" header, for `curl -H @-`
    #[arg(long, conflicts_with = "serve")]
    header: bool,
    /// Print the token even if stdout is a terminal
    #[arg(long, conflicts_with = "serve")]
    show: bool,
    /// Serve the current token on this Unix socket instead of printing it (GET /token or
    /// /header; the socket gets mode 0600, and its directory must be private)
    #[arg(long, value_name = "SOCKET")]
    serve: Option<PathBuf>,
}

pub(super) fn main(args: &Token) -> ExitCode {
    exit_code("token", issuer::run(|clock| token(args, clock)))
}

async fn token(args: &Token, clock: SharedClock) -> Result<(), CommandError> {
    if args.serve.is_none() && !args.show && io::stdout().is_terminal() {
        return usage(
            "a token printed to a terminal stays in its scrollback; pipe it, or use --show",
        );
    }
    let refresher = Arc::new(TokenRefresher {
        file: args.tokens.file()?,
        min_validity: Duration::from_secs(args.valid_for),
        clock,
    });
    if let Some(path) = &args.serve {
        return serve(path, refresher).await;
    }
    let token = refresher.current().await?;
    if args.header {
        print(&format!("Authorization: Bearer {}", token.expose()))
    } else {
        print(token.expose())
    }
}

async fn serve(path: &std::path::Path, refresher: Arc<TokenRefresher>) -> Result<(), CommandError> {
    let path = std::path::absolute(path)?;
    let socket = token_socket::TokenSocket::bind(&path).await?;
    status(&format!(
        "serving tokens on {}; press Ctrl-C to stop",
        path.display()
    ));
    let current = move || {
        let refresher = Arc::clone(&refresher);
        async move {
            refresher.current().await.map_err(|error| match error {
                CommandError::Failed(text) | CommandError::Usage(text) => {
                    status(&format!("hawkgate token: {text}"));
                    text
                }
            })
        }
    };
    tokio::select! {
        () = socket.serve(current) => failed("the socket was closed unexpectedly"),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// Refreshes a session's tokens when necessary.
struct TokenRefresher {
    file: PrivateFile,
    min_validity: Duration,
    clock: SharedClock,
}

impl TokenRefresher {
    /// An access token that is valid for long enough, refreshed if necessary.
    async fn current(&self) -> Result<SecretString, CommandError> {
        let session = Session::read(&self.file)?;
        if self.is_fresh(&session.tokens) {
            return Ok(session.tokens.access_token);
        }
        let file = self.file.clone();
        let locked = tokio::task::spawn_blocking(move || file.lock(on_lock_wait)).await??;
        // The process that held the lock may have refreshed the tokens.
        let session = Session::read(&self.file)?;
        if self.is_fresh(&session.tokens) {
            return Ok(session.tokens.access_token);
        }
        self.refresh_or_reuse(session, &locked).await
    }

    fn is_fresh(&self, tokens: &Tokens) -> bool {
        tokens.valid_for(self.min_validity, self.clock.now())
    }

    async fn refresh_or_reuse(
        &self,
        session: Session,
        locked: &LockedFile,
    ) -> Result<SecretString, CommandError> {
        let remedy = "sign in again with `hawkgate login`";
        let usable = session.tokens.valid_for(Duration::ZERO, self.clock.now());
        let old = session.tokens.access_token.clone();
        let Some(refresh_token) = session.tokens.refresh_token.clone() else {
            if usable {
                status(&format!(
                    "warning: the token expires soon and there is no refresh token: {remedy}"
                ));
                return Ok(old);
            }
            return failed(format!(
                "the token has expired and there is no refresh token: {remedy}"
            ));
        };
        match self.refresh(session, &refresh_token, locked).await {
            Ok(token) => Ok(token),
            Err(RefreshError::Rejected(text)) => failed(format!("{text}; {remedy}")),
            Err(RefreshError::Transient(text)) if usable => {
                status(&format!(
                    "warning: not refreshed: {text}; this token expires soon"
                ));
                Ok(old)
            }
            Err(RefreshError::Transient(text)) => failed(format!(
                "the token has expired and could not be refreshed: {text}"
            )),
        }
    }

    async fn refresh(
        &self,
        session: Session,
        refresh_token: &SecretString,
        locked: &LockedFile,
    ) -> Result<SecretString, RefreshError> {
        let client = issuer::client(session.ca_file.clone())?;
        let oauth_client = issuer::oauth_client(&session.client, &session.issuer)?;
        let sign_in = SignInClient::new(client.clone(), self.clock.clone(), oauth_client);
        let endpoint = &session.token_endpoint;
        let response = sign_in
            .refresh(endpoint, refresh_token, &session.resources)
            .await;
        let response = response.map_err(|e| match e.code {
            Some("invalid_grant" | "invalid_client" | "unauthorized_client") => {
                RefreshError::Rejected(e.to_string())
            }
            _ => RefreshError::Transient(e.to_string()),
        })?;
        let refreshed = session.refreshed(response.tokens);
        if let (Some(id_token), Some(subject)) = (response.id_token, &refreshed.subject) {
            // Saved before the ID token is verified, because rotation may have invalidated the
            // old refresh token. The access token is not used unless verification succeeds.
            let unverified = refreshed.clone().requiring_refresh();
            unverified.save(locked).map_err(CommandError::from)?;
            self.verify_id_token(&refreshed, id_token.expose(), subject, client)
                .await?;
        }
        refreshed.save(locked).map_err(CommandError::from)?;
        Ok(refreshed.tokens.access_token)
    }

    /// A refreshed ID token must be about the same user (OpenID Connect Core §12.2).
    async fn verify_id_token(
        &self,
        session: &Session,
        id_token: &str,
        subject: &str,
        client: HttpClient,
    ) -> Result<(), RefreshError> {
        let keys = Arc::new(DiscoveryFetcher::new(&session.issuer, client));
        let clock = Arc::clone(&self.clock);
        let verifier = IdTokenVerifier::new(&session.issuer, &session.client.id, keys, clock);
        let expected = Expected {
            nonce: None,
            access_token: Some(session.tokens.access_token.expose()),
            subject: Some(subject),
        };
        match verifier.verify(id_token, expected).await {
            Ok(_) => Ok(()),
            Err(error @ IdTokenError::Token(TokenError::KeysUnavailable { .. })) => {
                Err(RefreshError::Transient(error.to_string()))
            }
            Err(error) => Err(RefreshError::Rejected(error.to_string())),
        }
    }
}

/// Why a token was not refreshed.
enum RefreshError {
    /// The issuer rejected the refresh token or the client; retrying will not help.
    Rejected(String),
    /// The issuer could not be reached or failed; retrying may help.
    Transient(String),
}

impl From<CommandError> for RefreshError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Failed(text) | CommandError::Usage(text) => Self::Transient(text),
        }
    }
}
