//! Signing in on another device (RFC 8628): the person is shown a code, and the issuer is
//! asked in its own rhythm whether it was used.

use hawkgate::remote::signin::{DeviceAuthorization, TokenResponse};
use hawkgate::signin::{DevicePolling, NextPoll, Session};
use hawkgate::token::IdTokenVerifier;

use super::LoginContext;
use crate::cli::exit::{CommandError, status};

impl LoginContext<'_> {
    pub(super) async fn device_flow(
        &self,
        verifier: &IdTokenVerifier,
    ) -> Result<Session, CommandError> {
        let remedy = "this issuer has no device flow; sign in with a browser";
        let offered = &self.provider.device_authorization_endpoint;
        let endpoint = self
            .provider
            .need(offered, "device_authorization_endpoint", remedy)?;
        let issuer = self.issuer_url()?;
        let codes = self
            .sign_in
            .authorize_device(endpoint, &issuer, &self.request)
            .await?;
        let polling = DevicePolling::new(codes.interval, codes.expires_in, self.clock.monotonic());
        show(&codes);
        let received = self.poll(&codes, polling).await?;
        // Nothing was sent that a nonce could be tied to.
        self.believe(verifier, received, None).await
    }

    async fn poll(
        &self,
        codes: &DeviceAuthorization,
        mut polling: DevicePolling,
    ) -> Result<TokenResponse, CommandError> {
        let endpoint = self.token_endpoint()?;
        let mut wait = polling.first();
        loop {
            tokio::time::sleep(wait).await;
            let error = match self.sign_in.poll(endpoint, codes, &self.request).await {
                Ok(received) => return Ok(received),
                Err(error) => error,
            };
            let code = error.code.as_deref();
            if code.is_none() && !error.transient {
                return Err(error.into());
            }
            wait = match polling.next(code, self.clock.monotonic()) {
                Some(NextPoll::After(wait)) => wait,
                Some(NextPoll::Stop(end)) => return Err(end.into()),
                None => return Err(error.into()),
            };
        }
    }
}

fn show(codes: &DeviceAuthorization) {
    let (place, code) = (&codes.verification_uri, &codes.user_code);
    status(&format!(
        "on any device, open\n\n  {place}\n\nand enter the code\n\n  {code}\n"
    ));
    if let Some(complete) = &codes.verification_uri_complete {
        status(&format!(
            "or open this, and check that it shows the same code:\n\n  {complete}\n"
        ));
    }
    status("waiting for you to sign in there");
}
