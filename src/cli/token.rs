//! `hawkgate token`: the access token of the last sign-in, fresh. Rotated refresh tokens
//! are on the disk before anything is printed, and two shells do not race for them.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use hawkgate::clock::SharedClock;
use hawkgate::private_file::{DirectoryPolicy, LockedFile, PrivateFile};
use hawkgate::remote::discovery::DiscoveryFetcher;
use hawkgate::remote::http_client::HttpClient;
use hawkgate::remote::signin::SignInClient;
use hawkgate::remote::token_socket;
use hawkgate::secret::SecretString;
use hawkgate::signin::{Session, Tokens};
use hawkgate::token::{Expected, IdTokenError, IdTokenVerifier, TokenError};

use super::exit::{CommandError, exit_code, failed, print, status, usage};
use super::issuer::{self, waiting};
use super::login;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    hawkgate token --header | curl -H @- http://127.0.0.1:8080/api/auth/v1/scopes/current\n  \
    TOKEN=$(hawkgate token)                          # for a program that takes it from a variable\n  \
    hawkgate token --serve \"$XDG_RUNTIME_DIR/hawkgate/token.sock\" &\n  \
    curl -s --unix-socket \"$XDG_RUNTIME_DIR/hawkgate/token.sock\" http://localhost/token\n\n\
    A token that is about to end is renewed first, and what the issuer gave in exchange is saved \
    before anything is printed. On a terminal it is shown only with --show. \
    Exit codes: 0 printed, 1 nobody is signed in (any more), 2 wrong usage.";

/// Where the tokens are.
#[derive(Args, Debug)]
pub(super) struct TokenFile {
    /// The token file [default: hawkgate/tokens.json in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(flatten)]
    tokens: TokenFile,
    /// How long the token must still be good, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    valid_for: u64,
    /// Print "Authorization: Bearer …", for `curl -H @-`
    #[arg(long, conflicts_with = "serve")]
    header: bool,
    /// Print it though stdout is a terminal
    #[arg(long, conflicts_with = "serve")]
    show: bool,
    /// Do not print, but hand the current token out at this Unix socket (mode 0600, in a
    /// directory open to nobody else): GET /token or /header
    #[arg(long, value_name = "SOCKET")]
    serve: Option<PathBuf>,
}

impl TokenFile {
    pub(super) fn file(&self) -> Result<PrivateFile, CommandError> {
        let path = match &self.token_file {
            Some(path) => path.clone(),
            None => state_home()?.join("hawkgate/tokens.json"),
        };
        let path = std::path::absolute(path)?;
        Ok(PrivateFile::new(path, DirectoryPolicy::OwnerOnly))
    }
}

/// XDG Base Directory Specification: a relative path is as good as none.
fn state_home() -> Result<PathBuf, CommandError> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    if let Some(path) = set("XDG_STATE_HOME").filter(absolute) {
        return Ok(path);
    }
    match set("HOME").filter(absolute) {
        Some(home) => Ok(home.join(".local/state")),
        None => usage("neither XDG_STATE_HOME nor HOME is set; give --token-file"),
    }
}

pub(super) fn main(args: &Token) -> ExitCode {
    exit_code("token", issuer::run(|clock| token(args, clock)))
}

async fn token(args: &Token, clock: SharedClock) -> Result<(), CommandError> {
    if args.serve.is_none() && !args.show && io::stdout().is_terminal() {
        return usage("a token on a terminal stays in its scrollback: pipe it on, or give --show");
    }
    let refresher = Arc::new(TokenRefresher {
        file: args.tokens.file()?,
        at_least: Duration::from_secs(args.valid_for),
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
        "handing tokens out at {} until interrupted",
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
        () = socket.serve(current) => failed("the socket was lost"),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// Keeps a session's token fresh.
struct TokenRefresher {
    file: PrivateFile,
    at_least: Duration,
    clock: SharedClock,
}

impl TokenRefresher {
    /// An access token that is good for long enough, renewed if need be.
    async fn current(&self) -> Result<SecretString, CommandError> {
        let session = Session::read(&self.file)?;
        if self.is_fresh(&session.tokens) {
            return Ok(session.tokens.access_token);
        }
        let file = self.file.clone();
        let locked = tokio::task::spawn_blocking(move || file.lock(waiting)).await??;
        // Whoever had the lock may have renewed it.
        let session = Session::read(&self.file)?;
        if self.is_fresh(&session.tokens) {
            return Ok(session.tokens.access_token);
        }
        self.renew(session, &locked).await
    }

    fn is_fresh(&self, tokens: &Tokens) -> bool {
        tokens.valid_for(self.at_least, self.clock.now())
    }

    async fn renew(
        &self,
        session: Session,
        locked: &LockedFile,
    ) -> Result<SecretString, CommandError> {
        let again = "sign in again with `hawkgate login`";
        let usable = session.tokens.valid_for(Duration::ZERO, self.clock.now());
        let old = session.tokens.access_token.clone();
        let Some(refresh_token) = session.tokens.refresh_token.clone() else {
            if usable {
                status(&format!(
                    "the token ends soon and there is no refresh token: {again}"
                ));
                return Ok(old);
            }
            return failed(format!(
                "the token has ended, and there is no refresh token: {again}"
            ));
        };
        match self.refresh(session, &refresh_token, locked).await {
            Ok(token) => Ok(token),
            Err(RefreshError::Rejected(text)) => failed(format!("{text}; {again}")),
            Err(RefreshError::Transient(text)) if usable => {
                status(&format!("not renewed: {text}; this token ends soon"));
                Ok(old)
            }
            Err(RefreshError::Transient(text)) => failed(format!(
                "the token has ended and could not be renewed: {text}"
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
        let own = login::own(&session.client, &session.issuer)?;
        let sign_in = SignInClient::new(client.clone(), self.clock.clone(), own);
        let endpoint = &session.token_endpoint;
        let received = sign_in
            .refresh(endpoint, refresh_token, &session.resources)
            .await;
        let received = received.map_err(|e| match e.code.as_deref() {
            Some("invalid_grant" | "invalid_client" | "unauthorized_client") => {
                RefreshError::Rejected(e.to_string())
            }
            _ => RefreshError::Transient(e.to_string()),
        })?;
        let renewed = session.refreshed(received.tokens);
        if let (Some(id_token), Some(subject)) = (received.id_token, &renewed.subject) {
            // The old refresh token may be used up: the new one is saved, whatever comes of this.
            let requiring_refresh = renewed.clone().requiring_refresh();
            requiring_refresh.save(locked).map_err(CommandError::from)?;
            self.prove(&renewed, id_token.expose(), subject, client)
                .await?;
        }
        renewed.save(locked).map_err(CommandError::from)?;
        Ok(renewed.tokens.access_token)
    }

    /// A renewed ID token is about the same user (OpenID Connect Core §12.2).
    async fn prove(
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

/// Why a token was not renewed.
enum RefreshError {
    /// It never will be.
    Rejected(String),
    /// It may be, later.
    Transient(String),
}

impl From<CommandError> for RefreshError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Failed(text) | CommandError::Usage(text) => Self::Transient(text),
        }
    }
}
