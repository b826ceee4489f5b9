//! `hawkgate register`: arguments → what is wanted → [`plan_registration`] → `--plan`, or the tenant
//! prepared, the intent written down, the issuer asked, the answer saved. One run's way is
//! [`register`]; what is asked of the issuer is in [`steps`].

mod apply;
mod metadata;
mod tenant;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use hawkgate::clock::SharedClock;
use hawkgate::private_file::{DirectoryPolicy, LockedFile, PrivateFile};
use hawkgate::registration::{Overrides, RegistrationPlan, RegistrationState, plan_registration};
use hawkgate::remote::provider_metadata::issuer_url;
use hawkgate::secret::{SecretRef, SecretString};

use self::apply::RegistrationRun;
use self::metadata::MetadataArgs;
use self::tenant::TenantArgs;
use super::exit::{CommandError, exit_code, print, usage};
use super::issuer::{self, Network, waiting};

pub(super) const EXAMPLES: &str = "Examples:\n  \
    # a client for `hawkgate login`, at an issuer with open registration:\n  \
    hawkgate register --issuer https://idp.example.com --state client.json \\\n      \
    --client-name 'my shell' --redirect-uri http://127.0.0.1/callback --auth-method none\n  \
    # a client of the sidecar's own, with an initial access token:\n  \
    hawkgate register --issuer https://idp.example.com --state sidecar.json \\\n      \
    --client-name hawkgate --grant-type client_credentials --initial-access-token-file iat\n  \
    # what would be done to an Auth0 tenant:\n  \
    hawkgate register --issuer https://example.auth0.com/ --state client.json --plan \\\n      \
    --auth0-tenant --management-token-file mgmt --allow-open-registration --close-after \\\n      \
    --domain-connection Username-Password-Authentication \\\n      \
    --third-party-grant 'https://api.example.com/=read:items' \\\n      \
    --client-name 'my shell' --redirect-uri http://127.0.0.1:8085/callback\n  \
    hawkgate register --state client.json --delete\n\n\
    Run it again with the same arguments: nothing is done. With others: the client is changed \
    (RFC 7592), where the issuer allows it. Secrets come from files and go to files (mode 0600), \
    never to the terminal. Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Args, Debug)]
pub(super) struct Register {
    /// The issuer's identifier, to the slash
    #[arg(long, value_name = "URL", required_unless_present = "delete")]
    issuer: Option<String>,
    /// What is remembered of the client: made with mode 0600, keep it
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Where the client's secret is written [default: the state file's name with .secret]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A token that allows registering, if the issuer wants one (RFC 7591 §3)
    #[arg(long, value_name = "FILE")]
    initial_access_token_file: Option<PathBuf>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    plan: bool,
    /// Give up the client in the state, if it cannot be changed, for a new one
    #[arg(long, conflicts_with = "delete")]
    replace: bool,
    /// Take what was begun and never answered as dealt with; with --delete, remove the
    /// files here only
    #[arg(long)]
    forget: bool,
    /// Delete the client and its files
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    metadata: MetadataArgs,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    network: Network,
}

pub(super) fn main(args: &Register) -> ExitCode {
    let end = issuer::run(|clock| async move {
        if args.delete {
            delete(args, clock).await
        } else {
            register(args, clock).await
        }
    });
    exit_code("register", end)
}

async fn register(args: &Register, clock: SharedClock) -> Result<(), CommandError> {
    let issuer = args.issuer.clone().unwrap_or_default();
    let url = issuer_url(&issuer)?;
    let wanted = args.metadata.wanted()?;
    let initial_access_token = read_secret(args.initial_access_token_file.as_ref())?;
    let (file, locked) = args.open()?;
    let state = RegistrationState::read(&file)?;
    let decision = plan_registration(
        state.as_ref(),
        &issuer,
        &wanted,
        args.overrides(),
        clock.now(),
    );
    let client = issuer::client(args.network.ca.clone())?;
    let tenant = args.tenant.prepare(&url, &client, &clock).await?;
    let Some(locked) = locked else {
        let step = decision?;
        let tenant = tenant
            .as_ref()
            .map_or_else(|| Ok(vec![]), |t| t.plan(&step))?;
        return plan(&tenant, &apply::plan(&step, &issuer));
    };
    let run = RegistrationRun {
        locked: &locked,
        secret_file: args.secret_file(state.as_ref())?,
        issuer,
        url,
        client,
        clock,
        state,
        forget: args.forget,
    };
    let work = async {
        let step = decision?;
        if let Some(tenant) = &tenant {
            tenant.apply(&step).await?;
        }
        match step {
            RegistrationPlan::Unchanged(registration) => run.confirm(&registration),
            RegistrationPlan::Register { replaces } => {
                run.create(&wanted, initial_access_token.as_ref(), replaces)
                    .await
            }
            RegistrationPlan::Update(registration) => run.update(&registration, &wanted).await,
        }
    };
    let end = tokio::select! {
        end = work => end,
        () = interrupted() => Err(CommandError::Failed("interrupted; run it again to see how things stand".into())),
    };
    match &tenant {
        Some(tenant) => tenant.close_after(end).await,
        None => end,
    }
}

async fn delete(args: &Register, clock: SharedClock) -> Result<(), CommandError> {
    let (file, locked) = args.open()?;
    let state = RegistrationState::read(&file)?;
    if let (Some(state), Some(issuer)) = (&state, &args.issuer)
        && state.issuer != *issuer
    {
        return usage(format!("the state is of a client at {}", state.issuer));
    }
    let deletion = hawkgate::registration::plan_deletion(state.as_ref(), args.overrides())?;
    let Some(locked) = locked else {
        return plan(&[], &apply::plan_deletion(&deletion));
    };
    let issuer = state
        .as_ref()
        .map_or_else(String::new, |s| s.issuer.clone());
    let run = RegistrationRun {
        locked: &locked,
        secret_file: args.secret_file(state.as_ref())?,
        url: issuer_url(&issuer).or_else(|_| issuer_url("https://localhost/"))?,
        issuer,
        client: issuer::client(args.network.ca.clone())?,
        clock,
        state,
        forget: args.forget,
    };
    run.delete(&deletion).await
}

fn plan(tenant: &[String], step: &str) -> Result<(), CommandError> {
    let mut text = String::from("would do, in this order (nothing was changed):");
    for line in tenant.iter().map(String::as_str).chain([step]) {
        text.push_str("\n- ");
        text.push_str(line);
    }
    print(&text)
}

impl Register {
    fn overrides(&self) -> Overrides {
        Overrides {
            replace: self.replace,
            forget: self.forget,
        }
    }

    /// The state file, locked unless this is only a plan.
    fn open(&self) -> Result<(PrivateFile, Option<LockedFile>), CommandError> {
        let path = std::path::absolute(&self.state)?;
        let file = PrivateFile::new(path, DirectoryPolicy::OthersMayRead);
        let locked = if self.plan {
            None
        } else {
            Some(file.lock(waiting)?)
        };
        Ok((file, locked))
    }

    fn secret_file(&self, state: Option<&RegistrationState>) -> Result<PathBuf, CommandError> {
        let before = || state?.registration.as_ref()?.secret_file.clone();
        let beside = || {
            let mut name = self.state.clone().into_os_string();
            name.push(".secret");
            PathBuf::from(name)
        };
        let path = self.secret_file.clone().or_else(before);
        Ok(std::path::absolute(path.unwrap_or_else(beside))?)
    }
}

fn read_secret(path: Option<&PathBuf>) -> Result<Option<SecretString>, CommandError> {
    let read = path.map(|path| SecretRef::File(path.clone()).read());
    Ok(read.transpose()?)
}

/// SIGINT or SIGTERM. Where they cannot be caught, they end the process as usual.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
