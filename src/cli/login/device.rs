//! Signing in on another device (RFC 8628): the person is shown a code, and the issuer is
//! asked in its own rhythm whether it was used.

use hawkgate::remote::signin::{DeviceCodes, Received};
use hawkgate::signin::{Next, Polling, Session};
use hawkgate::token::IdTokenVerifier;

use super::Stage;
use crate::cli::stop::{Stop, tell};

impl Stage<'_> {
    pub(super) async fn on_another_device(
        &self,
        verifier: &IdTokenVerifier,
    ) -> Result<Session, Stop> {
        let remedy = "this issuer has no device flow; sign in with a browser";
        let offered = &self.provider.device_authorization_endpoint;
        let endpoint = self
            .provider
            .need(offered, "device_authorization_endpoint", remedy)?;
        let issuer = self.issuer_url()?;
        let codes = self
            .sign_in
            .device_codes(endpoint, &issuer, &self.request)
            .await?;
        let polling = Polling::begin(codes.interval, codes.expires_in, self.clock.monotonic());
        show(&codes);
        let received = self.poll(&codes, polling).await?;
        // Nothing was sent that a nonce could be tied to.
        self.believe(verifier, received, None).await
    }

    async fn poll(&self, codes: &DeviceCodes, mut polling: Polling) -> Result<Received, Stop> {
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
                Some(Next::After(wait)) => wait,
                Some(Next::End(end)) => return Err(end.into()),
                None => return Err(error.into()),
            };
        }
    }
}

fn show(codes: &DeviceCodes) {
    let (place, code) = (&codes.verification_uri, &codes.user_code);
    tell(&format!(
        "on any device, open\n\n  {place}\n\nand enter the code\n\n  {code}\n"
    ));
    if let Some(complete) = &codes.verification_uri_complete {
        tell(&format!(
            "or open this, and check that it shows the same code:\n\n  {complete}\n"
        ));
    }
    tell("waiting for you to sign in there");
}
