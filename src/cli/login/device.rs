//! The device authorization flow (RFC 8628): show the user a code to enter on another device,
//! and poll the token endpoint until they have.

use hawkgate::remote::signin::{DeviceAuthorization, IssuedTokens};
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
        let endpoint = &self.provider.device_authorization_endpoint;
        let endpoint = self
            .provider
            .require(endpoint, "device_authorization_endpoint", remedy)?;
        let issuer = self.issuer_url()?;
        let authorization = self
            .sign_in
            .authorize_device(endpoint, &issuer, &self.request)
            .await?;
        let polling = DevicePolling::new(
            authorization.interval,
            authorization.expires_in,
            self.clock.monotonic(),
        );
        show(&authorization);
        let response = self.poll(&authorization, polling).await?;
        // No nonce: a device authorization request has no parameter for one.
        self.verified_session(verifier, response, None).await
    }

    async fn poll(
        &self,
        authorization: &DeviceAuthorization,
        mut polling: DevicePolling,
    ) -> Result<IssuedTokens, CommandError> {
        let endpoint = self.token_endpoint()?;
        let mut wait = polling.first_delay();
        loop {
            tokio::time::sleep(wait).await;
            let error = match self
                .sign_in
                .poll(endpoint, authorization, &self.request)
                .await
            {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let code = error.code;
            if code.is_none() && !error.transient {
                return Err(error.into());
            }
            wait = match polling.after_error(code, self.clock.monotonic()) {
                Some(NextPoll::After(wait)) => wait,
                Some(NextPoll::Stop(reason)) => return Err(reason.into()),
                None => return Err(error.into()),
            };
        }
    }
}

fn show(authorization: &DeviceAuthorization) {
    let (uri, code) = (&authorization.verification_uri, &authorization.user_code);
    status(&format!(
        "on any device, open\n\n  {uri}\n\nand enter the code\n\n  {code}\n"
    ));
    if let Some(complete) = &authorization.verification_uri_complete {
        status(&format!(
            "or open this URL and check that it shows the same code:\n\n  {complete}\n"
        ));
    }
    status("waiting for you to sign in");
}
