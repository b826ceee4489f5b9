//! `hawkgate register`: registers, updates or deletes an OAuth client (RFC 7591, RFC 7592).
//! [`register`] reads top-down: desired [`metadata`] → [`plan_registration`] → print the plan,
//! or prepare the Auth0 [`tenant`] and [`apply`] the plan.

mod apply;
mod metadata;
mod tenant;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use hawkgate::clock::SharedClock;
use hawkgate::private_file::state::PersistentState as _;
use hawkgate::private_file::{DirectoryPolicy, LockedFile, PrivateFile};
use hawkgate::registration::{Overrides, RegistrationPlan, RegistrationState, plan_registration};
use hawkgate::remote::provider_metadata::issuer_url;
use hawkgate::secret::SecretString;

use self::apply::RegistrationRun;
use self::metadata::MetadataArgs;
use self::tenant::TenantArgs;
use super::exit::{CommandError, exit_code, print, usage};
use super::issuer::{self, Network, on_lock_wait};

pub(super) const EXAMPLES: &str = "Examples:\n  \
    # a client for `hawkgate login`, at an issuer with open registration:\n  \
    hawkgate register --issuer https://idp.example.com --state client.json \\\n      \
    --client-name 'my shell' --redirect-uri http://127.0.0.1/callback --auth-method none\n  \
    # a client for hawkgate itself, with an initial access token:\n  \
    hawkgate register --issuer https://idp.example.com --state sidecar.json \\\n      \
    --client-name hawkgate --grant-type client_credentials --initial-access-token-file iat\n  \
    # show what would change in an Auth0 tenant:\n  \
    hawkgate register --issuer https://example.auth0.com/ --state client.json --plan \\\n      \
    --auth0-tenant --management-token-file mgmt --allow-open-registration --close-after \\\n      \
    --domain-connection Username-Password-Authentication \\\n      \
    --third-party-grant 'https://api.example.com/=read:items' \\\n      \
    --client-name 'my shell' --redirect-uri http://127.0.0.1:8085/callback\n  \
    # delete the client and the local files:\n  \
    hawkgate register --state client.json --delete\n\n\
    Running the same command again changes nothing. Running it with other metadata updates the \
    client (RFC 7592), if the issuer supports that. Secrets are read from files and written to \
    files (mode 0600), never to the terminal.\n\n\
    Exit codes: 0 success, 1 failure, 2 usage error.";

#[derive(Args, Debug)]
pub(super) struct Register {
    /// Issuer identifier, exactly as in its metadata, including any trailing slash
    #[arg(long, value_name = "URL", required_unless_present = "delete")]
    issuer: Option<String>,
    /// State file for this client; created with mode 0600. Keep it: it is needed to update or
    /// delete the client
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Write the client secret to this file [default: the --state file's name plus .secret]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// File with an initial access token, for issuers that require one (RFC 7591 §3)
    #[arg(long, value_name = "FILE")]
    initial_access_token_file: Option<PathBuf>,
    /// Print what would be done, without changing anything
    #[arg(long)]
    plan: bool,
    /// If the client in the state file cannot be updated, abandon it and register a new one
    #[arg(long, conflicts_with = "delete")]
    replace: bool,
    /// Ignore an earlier operation whose outcome is unknown; with --delete, remove only the
    /// local files
    #[arg(long)]
    forget: bool,
    /// Delete the client at the issuer, and the local files
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    metadata: MetadataArgs,
    #[command(flatten)]
    tenant: TenantArgs,
}

pub(super) fn main(args: &Register) -> ExitCode {
    let result = issuer::run(|clock| async move {
        if args.delete {
            delete(args, clock).await
        } else {
            register(args, clock).await
        }
    });
    exit_code("register", result)
}

async fn register(args: &Register, clock: SharedClock) -> Result<(), CommandError> {
    let issuer = args.issuer.clone().unwrap_or_default();
    let url = issuer_url(&issuer)?;
    let metadata = args.metadata.client_metadata()?;
    let initial_access_token = read_secret(args.initial_access_token_file.as_ref())?;
    let (file, locked) = args.open()?;
    let state = RegistrationState::load(&file)?;
    let decision = plan_registration(
        state.as_ref(),
        &issuer,
        &metadata,
        args.overrides(),
        clock.now(),
    );
    let client = issuer::client(args.network.ca.clone())?;
    let tenant = args.tenant.prepare(&url, &client, &clock).await?;
    let Some(locked) = locked else {
        let plan = decision?;
        let tenant = tenant
            .as_ref()
            .map_or_else(|| Ok(vec![]), |t| t.planned_changes(&plan))?;
        return print_plan(&tenant, &apply::describe(&plan, &issuer));
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
        let plan = decision?;
        if let Some(tenant) = &tenant {
            tenant.apply(&plan).await?;
        }
        match plan {
            RegistrationPlan::Unchanged(registration) => run.keep(&registration),
            RegistrationPlan::Register { replaces } => {
                run.register(&metadata, initial_access_token.as_ref(), replaces)
                    .await
            }
            RegistrationPlan::Update(registration) => run.update(&registration, &metadata).await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = interrupted() => Err(CommandError::Failed("interrupted; run the same command again to see the current state".into())),
    };
    match &tenant {
        Some(tenant) => tenant.close_after(result).await,
        None => result,
    }
}

async fn delete(args: &Register, clock: SharedClock) -> Result<(), CommandError> {
    let (file, locked) = args.open()?;
    let state = RegistrationState::load(&file)?;
    if let (Some(state), Some(issuer)) = (&state, &args.issuer)
        && state.issuer != *issuer
    {
        return usage(format!(
            "the state file belongs to a client at {}",
            state.issuer
        ));
    }
    let deletion = hawkgate::registration::plan_deletion(state.as_ref(), args.overrides())?;
    let Some(locked) = locked else {
        return print_plan(&[], &apply::describe_deletion(&deletion));
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

fn print_plan(tenant_changes: &[String], change: &str) -> Result<(), CommandError> {
    let mut text = String::from("would do, in this order (nothing has been changed):");
    for line in tenant_changes.iter().map(String::as_str).chain([change]) {
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

    /// The state file, locked unless only a plan is printed.
    fn open(&self) -> Result<(PrivateFile, Option<LockedFile>), CommandError> {
        let path = std::path::absolute(&self.state)?;
        let file = PrivateFile::new(path, DirectoryPolicy::OthersMayRead);
        let locked = if self.plan {
            None
        } else {
            Some(file.lock(on_lock_wait)?)
        };
        Ok((file, locked))
    }

    fn secret_file(&self, state: Option<&RegistrationState>) -> Result<PathBuf, CommandError> {
        let previous = || state?.registration.as_ref()?.secret_file.clone();
        let default = || {
            let mut name = self.state.clone().into_os_string();
            name.push(".secret");
            PathBuf::from(name)
        };
        let path = self.secret_file.clone().or_else(previous);
        Ok(std::path::absolute(path.unwrap_or_else(default))?)
    }
}

fn read_secret(path: Option<&PathBuf>) -> Result<Option<SecretString>, CommandError> {
    let read = path.map(|path| SecretString::read_once(path.as_path()));
    Ok(read.transpose()?)
}

/// Resolves on SIGINT or SIGTERM. If no handlers can be installed, the signals keep their
/// default action.
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
