//! `hawkgate logout`: the tokens are ended at the issuer, then forgotten here.

use std::process::ExitCode;

use clap::Args;

use hawkgate::clock::SharedClock;
use hawkgate::remote::signin::SignInClient;
use hawkgate::signin::{Session, SessionError};

use super::exit::{CommandError, exit_code, failed, print};
use super::issuer::{self, waiting};
use super::login;
use super::token::TokenFile;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    hawkgate logout\n  \
    hawkgate logout --local      # the issuer is gone: only forget the tokens here\n\n\
    Where the issuer revokes tokens (RFC 7009) they are revoked first; if that fails the file stays, \
    so that it can be tried again. Exit codes: 0 signed out, 1 not, 2 wrong usage.";

#[derive(Args, Debug)]
pub(super) struct Logout {
    #[command(flatten)]
    tokens: TokenFile,
    /// Do not ask the issuer to revoke the tokens
    #[arg(long)]
    local: bool,
}

pub(super) fn main(args: &Logout) -> ExitCode {
    exit_code("logout", issuer::run(|clock| logout(args, clock)))
}

async fn logout(args: &Logout, clock: SharedClock) -> Result<(), CommandError> {
    let file = args.tokens.file()?;
    let locked = file.lock(waiting)?;
    if args.local {
        locked.remove()?;
        return print("forgot the tokens here; at the issuer they live on until they end");
    }
    let session = match Session::read(&file) {
        Err(SessionError::None(_)) => return print("nobody was signed in"),
        session => session?,
    };
    let revoked = revoke(&session, clock).await?;
    locked.remove()?;
    print(if revoked {
        "signed out: the tokens were revoked, and forgotten here"
    } else {
        "signed out here; the issuer does not revoke tokens, so they live on until they end"
    })
}

/// RefreshError token first: it is the one that could be used for long.
async fn revoke(session: &Session, clock: SharedClock) -> Result<bool, CommandError> {
    let Some(endpoint) = &session.revocation_endpoint else {
        return Ok(false);
    };
    let client = issuer::client(session.ca_file.clone())?;
    let own = login::own(&session.client, &session.issuer)?;
    let sign_in = SignInClient::new(client, clock, own);
    let refresh = session.tokens.refresh_token.as_ref();
    let access = Some(&session.tokens.access_token);
    for (token, hint) in [(refresh, "refresh_token"), (access, "access_token")] {
        let Some(token) = token else { continue };
        if let Err(error) = sign_in.revoke(endpoint, token, hint).await {
            // A JWT that the issuer keeps no record of cannot be revoked (RFC 7009 §2.2.1).
            let unsupported = error.code.as_deref() == Some("unsupported_token_type");
            if !unsupported {
                return failed(format!(
                    "not signed out, the tokens could not be revoked: {error}. Try again, or give \
                     --local to forget them here all the same"
                ));
            }
        }
    }
    Ok(true)
}
