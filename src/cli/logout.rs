//! `hawkgate logout`: revokes the tokens at the issuer, then deletes the token file.

use std::process::ExitCode;

use clap::Args;

use hawkgate::clock::SharedClock;
use hawkgate::remote::signin::SignInClient;
use hawkgate::signin::{Session, SessionError};

use super::exit::{CommandError, exit_code, failed, print};
use super::issuer::{self, on_lock_wait};
use super::token_file::TokenFile;

pub(super) const EXAMPLES: &str = "Examples:\n  \
    hawkgate logout\n  \
    hawkgate logout --local      # the issuer is gone: only delete the token file\n\n\
    If the issuer supports revocation (RFC 7009), the tokens are revoked first. If that fails, the \
    token file is kept so that you can try again.\n\n\
    Exit codes: 0 signed out, 1 failure, 2 usage error.";

#[derive(Args, Debug)]
pub(super) struct Logout {
    #[command(flatten)]
    tokens: TokenFile,
    /// Delete the token file without revoking the tokens at the issuer
    #[arg(long)]
    local: bool,
}

pub(super) fn main(args: &Logout) -> ExitCode {
    exit_code("logout", issuer::run(|clock| logout(args, clock)))
}

async fn logout(args: &Logout, clock: SharedClock) -> Result<(), CommandError> {
    let file = args.tokens.file()?;
    let locked = file.lock(on_lock_wait)?;
    if args.local {
        locked.remove()?;
        return print("deleted the token file; the tokens remain valid until they expire");
    }
    let session = match Session::read(&file) {
        Err(SessionError::NotSignedIn(_)) => return print("not signed in; nothing to do"),
        session => session?,
    };
    let revoked = revoke(&session, clock).await?;
    locked.remove()?;
    print(if revoked {
        "signed out: the tokens were revoked and the token file deleted"
    } else {
        "deleted the token file; the issuer does not support revocation, so the tokens remain valid until they expire"
    })
}

/// Revokes the refresh token first, because it lives longest. Returns whether the issuer
/// supports revocation.
async fn revoke(session: &Session, clock: SharedClock) -> Result<bool, CommandError> {
    let Some(endpoint) = &session.revocation_endpoint else {
        return Ok(false);
    };
    let client = issuer::client(session.ca_file.clone())?;
    let oauth_client = issuer::oauth_client(&session.client, &session.issuer)?;
    let sign_in = SignInClient::new(client, clock, oauth_client);
    let refresh = session.tokens.refresh_token.as_ref();
    let access = Some(&session.tokens.access_token);
    for (token, hint) in [(refresh, "refresh_token"), (access, "access_token")] {
        let Some(token) = token else { continue };
        if let Err(error) = sign_in.revoke(endpoint, token, hint).await {
            // Issuers cannot revoke JWTs that they keep no record of (RFC 7009 §2.2.1).
            let unsupported = error.code == Some("unsupported_token_type");
            if !unsupported {
                return failed(format!(
                    "still signed in: the tokens could not be revoked: {error}. Try again, or give \
                     --local to delete the token file anyway"
                ));
            }
        }
    }
    Ok(true)
}
