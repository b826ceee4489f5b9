//! `hawkgate login`: a person signs in. One sign-in's way is [`login`]: which client →
//! the token file made sure of → the issuer's metadata → the browser ([`browser`]) or
//! another device ([`device`]) → the ID token verified → the tokens saved.

mod browser;
mod client;
mod device;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use hawkgate::clock::{SharedClock, UnixMillis};
use hawkgate::private_file::PrivateFile;
use hawkgate::remote::discovery::DiscoveryFetcher;
use hawkgate::remote::jwks::JwksUriFetcher;
use hawkgate::remote::provider_metadata::{ProviderMetadata, issuer_url};
use hawkgate::remote::signin::{SignInClient, TokenResponse};
use hawkgate::signin::{AuthorizationRequest, Session};
use hawkgate::token::{Expected, IdTokenVerifier, KeyFetcher};

pub(super) use self::client::own;
use self::client::{ClientArgs, LoginClient};
use super::exit::{CommandError, exit_code, failed, print};
use super::issuer::{self, Network, waiting};
use super::token::TokenFile;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    hawkgate login --state client.json               # the client that `hawkgate register` made\n  \
    hawkgate login --issuer https://example.auth0.com/ --client-id abc --port 8085 \\\n      \
    --audience https://api.example.com/             # a client made by hand\n  \
    hawkgate login --state client.json --device      # no browser on this machine\n  \
    hawkgate token --header | curl -H @- http://127.0.0.1:8080/api/auth/v1/scopes/current\n\n\
    The tokens go to a file with mode 0600, in a directory that is open to nobody else; \
    `hawkgate token` prints them, `hawkgate logout` ends them. \
    Exit codes: 0 signed in, 1 not, 2 wrong usage.";

#[derive(Args, Debug)]
pub(super) struct Login {
    #[command(flatten)]
    client: ClientArgs,
    /// Scopes to ask for [default: openid, with offline_access where the issuer has it]
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// The API that the access token is for, as Auth0 wants it named
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// The same by RFC 8707; more than one may be given
    #[arg(long, value_name = "URI")]
    resource: Vec<String>,
    /// Sign in on another device, with a code (RFC 8628)
    #[arg(long, conflicts_with_all = ["port", "no_browser", "redirect_uri"])]
    device: bool,
    /// Print the URL instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    /// Where the browser comes back to [default: the client's own on loopback, or
    /// http://127.0.0.1/callback with any free port]
    #[arg(long, value_name = "URI")]
    redirect_uri: Option<String>,
    /// The port of it, for issuers that want it exact
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    tokens: TokenFile,
    #[command(flatten)]
    network: Network,
}

/// Everything that a way of signing in needs.
struct LoginContext<'a> {
    args: &'a Login,
    who: &'a LoginClient,
    provider: &'a ProviderMetadata,
    sign_in: SignInClient,
    request: AuthorizationRequest,
    clock: SharedClock,
}

pub(super) fn main(args: &Login) -> ExitCode {
    exit_code("login", issuer::run(|clock| login(args, clock)))
}

async fn login(args: &Login, clock: SharedClock) -> Result<(), CommandError> {
    let who = args.client.who()?;
    let file = args.tokens.file()?;
    // That it can be kept is known before anybody is asked to sign in.
    drop(file.lock(waiting)?);
    let client = issuer::client(args.network.ca.clone())?;
    let provider = ProviderMetadata::discover(&client, &who.issuer).await?;
    let own = who.at(&provider)?;
    let stage = LoginContext {
        args,
        who: &who,
        provider: &provider,
        sign_in: SignInClient::new(client.clone(), clock.clone(), own),
        request: request(args, &who, &provider),
        clock: clock.clone(),
    };
    let keys: Arc<dyn KeyFetcher> = match &provider.jwks_uri {
        Some(url) => Arc::new(JwksUriFetcher::new(url.clone(), client.clone())),
        None => Arc::new(DiscoveryFetcher::new(&who.issuer, client.clone())),
    };
    let verifier = IdTokenVerifier::new(&who.issuer, &who.id, keys, clock);
    let session = if args.device {
        stage.device_flow(&verifier).await?
    } else {
        stage.browser_flow(&verifier).await?
    };
    session.save(&file.lock(waiting)?)?;
    report(&session, &file)
}

/// What to ask for: what was said, what the client was registered for, or enough to know
/// who it is and to stay signed in.
fn request(args: &Login, who: &LoginClient, provider: &ProviderMetadata) -> AuthorizationRequest {
    let offered = |scope: &str| {
        let scopes = provider.scopes_supported.as_ref();
        scopes.is_some_and(|list| list.iter().any(|s| s == scope))
    };
    let usual = || {
        let offline = if offered("offline_access") {
            " offline_access"
        } else {
            ""
        };
        format!("openid{offline}")
    };
    let said = args.scope.clone().or_else(|| who.scope.clone());
    AuthorizationRequest {
        scope: said.unwrap_or_else(usual),
        audience: args.audience.clone(),
        resources: args.resource.clone(),
    }
}

impl LoginContext<'_> {
    /// Tokens become a session once the ID token is believed. Where one was asked for, one
    /// must have come.
    async fn believe(
        &self,
        verifier: &IdTokenVerifier,
        received: TokenResponse,
        nonce: Option<&str>,
    ) -> Result<Session, CommandError> {
        let TokenResponse { tokens, id_token } = received;
        let subject = match id_token {
            Some(id_token) => {
                let expected = Expected {
                    nonce,
                    access_token: Some(tokens.access_token.expose()),
                    subject: None,
                };
                Some(verifier.verify(id_token.expose(), expected).await?)
            }
            None if self.request.wants_id_token() => {
                return failed("the issuer sent no ID token, though openid was asked for");
            }
            None => None,
        };
        let endpoint = self.token_endpoint()?.clone();
        let mut session = Session::new(
            &self.who.issuer,
            self.who.client()?,
            subject,
            endpoint,
            self.provider.revocation_endpoint.clone(),
            self.request.resources.clone(),
            tokens,
        );
        session.ca_file = self
            .args
            .network
            .ca
            .as_ref()
            .map(std::path::absolute)
            .transpose()?;
        Ok(session)
    }

    fn token_endpoint(&self) -> Result<&url::Url, CommandError> {
        let remedy = "nobody can sign in there";
        let endpoint = &self.provider.token_endpoint;
        Ok(self.provider.need(endpoint, "token_endpoint", remedy)?)
    }

    fn issuer_url(&self) -> Result<url::Url, CommandError> {
        Ok(issuer_url(&self.who.issuer)?)
    }
}

fn report(session: &Session, file: &PrivateFile) -> Result<(), CommandError> {
    let who = session
        .subject
        .as_deref()
        .unwrap_or("(no ID token asked for)");
    // A subject has no control characters: that was checked with the ID token.
    let mut lines = vec![format!("signed in as {who} at {}", session.issuer)];
    if let Some(end) = session.tokens.expires_at {
        let end = UnixMillis(end).to_rfc3339();
        lines.push(format!("the access token ends at {end}"));
    }
    lines.push(match session.tokens.refresh_token {
        Some(_) => "`hawkgate token` renews it in time".to_owned(),
        None => "there is no refresh token: sign in again then".to_owned(),
    });
    let path = file.path().display();
    lines.push(format!("the tokens are in {path} (mode 0600)"));
    lines.push(
        "\ntry it:\n  hawkgate token --header | curl -H @- http://127.0.0.1:8080/…".to_owned(),
    );
    print(&lines.join("\n"))
}
