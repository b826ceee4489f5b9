//! `hawkgate login`: signs a user in and saves the tokens. [`login`] reads top-down: choose the
//! OAuth client ([`client`]) → make sure the token file is writable → fetch the issuer's
//! metadata → sign in with a [`browser`] or on another [`device`] → verify the ID token → save.

mod browser;
mod client;
mod device;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use hawkgate::clock::{SharedClock, UnixMillis};
use hawkgate::private_file::PrivateFile;
use hawkgate::private_file::state::PersistentState as _;
use hawkgate::remote::discovery::DiscoveryFetcher;
use hawkgate::remote::jwks::JwksUriFetcher;
use hawkgate::remote::provider_metadata::{ProviderMetadata, issuer_url};
use hawkgate::remote::signin::{IssuedTokens, SignInClient};
use hawkgate::signin::{AuthorizationRequest, Session};
use hawkgate::token::{Expected, IdTokenVerifier, KeyFetcher};

use self::client::{ClientArgs, LoginClient};
use super::exit::{CommandError, exit_code, failed, print};
use super::issuer::{self, Network, on_lock_wait};
use super::token_file::TokenFile;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    hawkgate login --state client.json               # a client from `hawkgate register`\n  \
    hawkgate login --issuer https://example.auth0.com/ --client-id abc --port 8085 \\\n      \
    --audience https://api.example.com/          # a client registered by hand\n  \
    hawkgate login --state client.json --device      # no browser on this machine\n  \
    hawkgate token --header | curl -H @- http://127.0.0.1:8080/api/auth/v1/scopes/current\n\n\
    The tokens are stored in a file with mode 0600 in a private directory. `hawkgate token` prints \
    them, `hawkgate logout` revokes them.\n\n\
    Exit codes: 0 signed in, 1 failure, 2 usage error.";

#[derive(Args, Debug)]
pub(super) struct Login {
    /// Scopes to request, separated by spaces [default: those the client was registered with,
    /// else openid, and offline_access if the issuer supports it]
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// API that the access token is for, as an `audience` parameter (Auth0)
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// API that the access token is for, as a `resource` parameter (RFC 8707); repeatable
    #[arg(long, value_name = "URI")]
    resource: Vec<String>,
    /// Sign in on another device by entering a code (RFC 8628)
    #[arg(long, conflicts_with_all = ["port", "no_browser", "redirect_uri"])]
    device: bool,
    /// Print the sign-in URL instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    /// Loopback redirect URI [default: the one the client was registered with, else
    /// http://127.0.0.1/callback on any free port]
    #[arg(long, value_name = "URI")]
    redirect_uri: Option<String>,
    /// Port of the redirect URI, for issuers that require an exact match
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    tokens: TokenFile,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    client: ClientArgs,
}

/// The context that the browser and device flows share.
struct LoginContext<'a> {
    args: &'a Login,
    client: &'a LoginClient,
    provider: &'a ProviderMetadata,
    sign_in: SignInClient,
    request: AuthorizationRequest,
    clock: SharedClock,
}

pub(super) fn main(args: &Login) -> ExitCode {
    exit_code("login", issuer::run(|clock| login(args, clock)))
}

async fn login(args: &Login, clock: SharedClock) -> Result<(), CommandError> {
    let login_client = args.client.resolve()?;
    let file = args.tokens.file()?;
    // Fail before the user signs in, not after, if the tokens cannot be saved.
    drop(file.lock(on_lock_wait)?);
    let http = issuer::client(args.network.ca.clone())?;
    let provider = ProviderMetadata::discover(&http, &login_client.issuer).await?;
    let oauth_client = login_client.oauth_client(&provider)?;
    let context = LoginContext {
        args,
        client: &login_client,
        provider: &provider,
        sign_in: SignInClient::new(http.clone(), clock.clone(), oauth_client),
        request: authorization_request(args, &login_client, &provider),
        clock: clock.clone(),
    };
    let keys: Arc<dyn KeyFetcher> = match &provider.jwks_uri {
        Some(url) => Arc::new(JwksUriFetcher::new(url.clone(), http.clone())),
        None => Arc::new(DiscoveryFetcher::new(&login_client.issuer, http.clone())),
    };
    let verifier = IdTokenVerifier::new(&login_client.issuer, &login_client.id, keys, clock);
    let session = if args.device {
        context.device_flow(&verifier).await?
    } else {
        context.browser_flow(&verifier).await?
    };
    session.save(&file.lock(on_lock_wait)?)?;
    report(&session, &file)
}

/// The scopes given on the command line, else those the client was registered with, else enough
/// to identify the user and stay signed in.
fn authorization_request(
    args: &Login,
    client: &LoginClient,
    provider: &ProviderMetadata,
) -> AuthorizationRequest {
    let supported = |scope: &str| {
        let scopes = provider.scopes_supported.as_ref();
        scopes.is_some_and(|list| list.iter().any(|s| s == scope))
    };
    let default = || {
        let offline = if supported("offline_access") {
            " offline_access"
        } else {
            ""
        };
        format!("openid{offline}")
    };
    let scope = args.scope.clone().or_else(|| client.scope.clone());
    AuthorizationRequest {
        scope: scope.unwrap_or_else(default),
        audience: args.audience.clone(),
        resources: args.resource.clone(),
        without_pkce: false,
    }
}

impl LoginContext<'_> {
    /// Verifies the ID token, which must be present if `openid` was requested, and builds the
    /// session.
    async fn verified_session(
        &self,
        verifier: &IdTokenVerifier,
        response: IssuedTokens,
        nonce: Option<&str>,
    ) -> Result<Session, CommandError> {
        let IssuedTokens { tokens, id_token } = response;
        let subject = match id_token {
            Some(id_token) => {
                let expected = Expected {
                    nonce,
                    access_token: Some(tokens.access_token.expose()),
                    subject: None,
                };
                Some(verifier.verify(id_token.expose(), expected).await?.subject)
            }
            None if self.request.wants_id_token() => {
                return failed(
                    "the issuer sent no ID token although the scope openid was requested",
                );
            }
            None => None,
        };
        let endpoint = self.token_endpoint()?.clone();
        let mut session = Session::new(
            &self.client.issuer,
            self.client.session_client()?,
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
        let remedy = "signing in is not possible";
        let endpoint = &self.provider.token_endpoint;
        Ok(self.provider.require(endpoint, "token_endpoint", remedy)?)
    }

    fn issuer_url(&self) -> Result<url::Url, CommandError> {
        Ok(issuer_url(&self.client.issuer)?)
    }
}

fn report(session: &Session, file: &PrivateFile) -> Result<(), CommandError> {
    let subject = session
        .subject
        .as_deref()
        .unwrap_or("(unknown user: no ID token was requested)");
    // Safe to print: the ID token verifier rejects subjects with control characters.
    let mut lines = vec![format!("signed in as {subject} at {}", session.issuer)];
    if let Some(expiry) = session.tokens.expires_at {
        let expiry = UnixMillis(expiry).to_rfc3339();
        lines.push(format!("the access token expires at {expiry}"));
    }
    lines.push(match session.tokens.refresh_token {
        Some(_) => "`hawkgate token` refreshes it when needed".to_owned(),
        None => "there is no refresh token: sign in again when the access token expires".to_owned(),
    });
    let path = file.path().display();
    lines.push(format!("tokens saved to {path} (mode 0600)"));
    lines.push(
        "\nTry it:\n  hawkgate token --header | curl -H @- http://127.0.0.1:8080/…".to_owned(),
    );
    print(&lines.join("\n"))
}
