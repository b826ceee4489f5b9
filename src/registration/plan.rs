//! Compares the desired client metadata with the state file and decides what to do.

use super::metadata::ClientMetadata;
use super::state::{Action, Intent, Registration, RegistrationState};
use crate::clock::UnixMillis;

/// What the operator has explicitly allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--replace`: abandon a client that cannot be updated, and register a new one.
    pub replace: bool,
    /// `--forget`: disregard an operation whose outcome is unknown.
    pub forget: bool,
}

/// What to do so that the client has the desired metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistrationPlan {
    /// Nothing: the client is up to date.
    Unchanged(Registration),
    /// Register a new client (RFC 7591 §3.1).
    Register {
        /// The client that is abandoned; it still exists at its issuer.
        replaces: Option<String>,
    },
    /// Replace the client's metadata (RFC 7592 §2.2).
    Update(Registration),
}

/// What to do to delete the client.
#[derive(Clone, Debug, PartialEq)]
pub enum DeletionPlan {
    /// Delete it at the issuer (RFC 7592 §2.3), then the local files.
    AtIssuer {
        /// The client to delete.
        registration: Box<Registration>,
        /// Whether an earlier request, whose outcome is unknown, may have deleted it.
        maybe_deleted: bool,
    },
    /// Delete only the local files.
    FilesOnly,
    /// Nothing: there is no state file.
    NotRegistered,
}

/// Why the operator has to decide what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The state file belongs to another issuer's client.
    #[error(
        "the state file belongs to client {client} at {issuer}. Use another --state for the other \
         issuer, or give --replace to abandon that client"
    )]
    OtherIssuer {
        /// That client's issuer.
        issuer: String,
        /// The client identifier.
        client: String,
    },
    /// The outcome of an earlier registration is unknown.
    #[error(
        "a registration of {name} at {issuer} was started at {begun_at} and no response was \
         received: the issuer may or may not have created the client. If it has a client of that \
         name and time, delete it (its secret is lost); then run the same command with --forget"
    )]
    Unresolved {
        /// The issuer.
        issuer: String,
        /// The client's name, quoted, to find it by.
        name: String,
        /// When the request was sent, RFC 3339.
        begun_at: String,
    },
    /// The outcome of an earlier deletion is unknown.
    #[error(
        "a deletion of this client was started at {begun_at} and no response was received. Finish it \
         with `hawkgate register --delete`, or give --forget to keep using the client"
    )]
    Deleting {
        /// When the request was sent, RFC 3339.
        begun_at: String,
    },
    /// The metadata differs and the client cannot be updated.
    #[error(
        "client {client} was registered with other metadata, and its issuer gave no registration \
         access token to update it with. Change it in the issuer's console, or give --replace to \
         abandon it and register a new client"
    )]
    Unmanageable {
        /// Its identifier.
        client: String,
    },
    /// The issuer gave no registration access token to delete the client with.
    #[error(
        "cannot delete client {client}: its issuer gave no registration access token. Delete it in \
         the issuer's console, then give --forget to remove the local files"
    )]
    Undeletable {
        /// Its identifier.
        client: String,
    },
}

/// Decides how to get a client with the `desired` metadata at `issuer`.
///
/// # Errors
/// When the operator has to decide.
pub fn plan_registration(
    state: Option<&RegistrationState>,
    issuer: &str,
    desired: &ClientMetadata,
    overrides: Overrides,
    now: UnixMillis,
) -> Result<RegistrationPlan, PlanError> {
    let Some(state) = state else {
        return Ok(RegistrationPlan::Register { replaces: None });
    };
    let intent = state.intent.as_ref().filter(|_| !overrides.forget);
    match intent.map(|intent| (intent.action, intent)) {
        Some((Action::Register, intent)) => return Err(unresolved(intent)),
        Some((Action::Delete, intent)) => {
            let begun_at = intent.begun_at.clone();
            return Err(PlanError::Deleting { begun_at });
        }
        // An interrupted update can be sent again: PUT is idempotent.
        Some((Action::Update, _)) | None => {}
    }
    let Some(registration) = &state.registration else {
        return Ok(RegistrationPlan::Register { replaces: None });
    };
    let client = registration.client_id.clone();
    let abandon = RegistrationPlan::Register {
        replaces: Some(client.clone()),
    };
    if state.issuer != issuer {
        let issuer = state.issuer.clone();
        let error = PlanError::OtherIssuer { issuer, client };
        return if overrides.replace {
            Ok(abandon)
        } else {
            Err(error)
        };
    }
    let up_to_date =
        registration.metadata == *desired && intent.is_none() && !registration.secret_expired(now);
    if up_to_date {
        Ok(RegistrationPlan::Unchanged(registration.clone()))
    } else if overrides.replace {
        Ok(abandon)
    } else if registration.management().is_some() {
        Ok(RegistrationPlan::Update(registration.clone()))
    } else {
        Err(PlanError::Unmanageable { client })
    }
}

fn unresolved(intent: &Intent) -> PlanError {
    let name = intent.metadata.client_name();
    PlanError::Unresolved {
        issuer: intent.issuer.clone(),
        name: name.map_or_else(|| "an unnamed client".into(), |n| format!("{n:?}")),
        begun_at: intent.begun_at.clone(),
    }
}

/// Decides how to delete the client.
///
/// # Errors
/// When the operator has to decide.
pub fn plan_deletion(
    state: Option<&RegistrationState>,
    overrides: Overrides,
) -> Result<DeletionPlan, PlanError> {
    let Some(state) = state else {
        return Ok(DeletionPlan::NotRegistered);
    };
    if overrides.forget {
        return Ok(DeletionPlan::FilesOnly);
    }
    let pending = |action| state.intent.as_ref().filter(|i| i.action == action);
    if let Some(intent) = pending(Action::Register) {
        return Err(unresolved(intent));
    }
    match &state.registration {
        None => Ok(DeletionPlan::FilesOnly),
        Some(registration) if registration.management().is_some() => Ok(DeletionPlan::AtIssuer {
            registration: Box::new(registration.clone()),
            maybe_deleted: pending(Action::Delete).is_some(),
        }),
        Some(registration) => Err(PlanError::Undeletable {
            client: registration.client_id.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{metadata, registration};
    use super::*;

    const ISSUER: &str = "https://a.example/";
    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
    const NONE: Overrides = Overrides {
        replace: false,
        forget: false,
    };
    const REPLACE: Overrides = Overrides {
        replace: true,
        forget: false,
    };
    const FORGET: Overrides = Overrides {
        replace: false,
        forget: true,
    };

    fn registered() -> RegistrationState {
        RegistrationState::new(ISSUER).with_registration(ISSUER, registration("n"))
    }

    fn unmanaged() -> RegistrationState {
        let mut registration = registration("n");
        registration.registration_access_token = None;
        RegistrationState::new(ISSUER).with_registration(ISSUER, registration)
    }

    fn planned(
        state: &RegistrationState,
        name: &str,
        overrides: Overrides,
    ) -> Result<RegistrationPlan, PlanError> {
        plan_registration(Some(state), ISSUER, &metadata(name), overrides, NOW)
    }

    fn replacement() -> RegistrationPlan {
        RegistrationPlan::Register {
            replaces: Some("c1".into()),
        }
    }

    #[test]
    fn unchanged_metadata_needs_no_request() {
        let create = plan_registration(None, ISSUER, &metadata("n"), NONE, NOW).unwrap();
        assert_eq!(create, RegistrationPlan::Register { replaces: None });
        let nothing = RegistrationPlan::Unchanged(registration("n"));
        assert_eq!(planned(&registered(), "n", NONE), Ok(nothing.clone()));
        assert_eq!(planned(&registered(), "n", REPLACE), Ok(nothing.clone()));
        assert!(planned(&unmanaged(), "n", NONE).is_ok());
    }

    #[test]
    fn changed_metadata_is_updated_if_the_client_can_be_managed() {
        assert_eq!(
            planned(&registered(), "m", NONE),
            Ok(RegistrationPlan::Update(registration("n")))
        );
        assert_eq!(planned(&registered(), "m", REPLACE), Ok(replacement()));
        let refused = planned(&unmanaged(), "m", NONE).unwrap_err();
        assert!(refused.to_string().contains("--replace"));
        assert_eq!(planned(&unmanaged(), "m", REPLACE), Ok(replacement()));
    }

    #[test]
    fn another_issuers_client_is_not_overwritten_without_replace() {
        let other = |overrides| {
            plan_registration(
                Some(&registered()),
                "https://b/",
                &metadata("n"),
                overrides,
                NOW,
            )
        };
        assert!(other(NONE).unwrap_err().to_string().contains(ISSUER));
        assert_eq!(other(REPLACE), Ok(replacement()));
    }

    #[test]
    fn an_expired_client_secret_needs_an_update() {
        let mut expired = registration("n");
        expired.client_secret_expires_at = 1;
        let state = RegistrationState::new(ISSUER).with_registration(ISSUER, expired.clone());
        assert_eq!(
            planned(&state, "n", NONE),
            Ok(RegistrationPlan::Update(expired))
        );
    }

    #[test]
    fn an_intent_record_takes_precedence() {
        let begun = |state: RegistrationState, action| {
            state.with_intent(action, ISSUER, &metadata("n"), NOW)
        };
        let lost = begun(RegistrationState::new(ISSUER), Action::Register);
        for overrides in [NONE, REPLACE] {
            let error = planned(&lost, "n", overrides).unwrap_err().to_string();
            assert!(
                error.contains("\"n\"") && error.contains("--forget"),
                "{error}"
            );
        }
        assert_eq!(
            planned(&lost, "n", FORGET),
            Ok(RegistrationPlan::Register { replaces: None })
        );
        let again = planned(&begun(registered(), Action::Update), "n", NONE);
        assert_eq!(again, Ok(RegistrationPlan::Update(registration("n"))));
        let deleting = begun(registered(), Action::Delete);
        let error = planned(&deleting, "n", NONE).unwrap_err().to_string();
        assert!(error.contains("--delete"), "{error}");
        assert_eq!(
            planned(&deleting, "n", FORGET),
            Ok(RegistrationPlan::Unchanged(registration("n")))
        );
    }

    #[test]
    fn deletion_needs_a_registration_access_token() {
        let at_issuer = |maybe_deleted| DeletionPlan::AtIssuer {
            registration: Box::new(registration("n")),
            maybe_deleted,
        };
        assert_eq!(plan_deletion(None, NONE), Ok(DeletionPlan::NotRegistered));
        assert_eq!(
            plan_deletion(Some(&registered()), NONE),
            Ok(at_issuer(false))
        );
        let again = registered().with_intent(Action::Delete, ISSUER, &metadata("n"), NOW);
        assert_eq!(plan_deletion(Some(&again), NONE), Ok(at_issuer(true)));
        let error = plan_deletion(Some(&unmanaged()), NONE)
            .unwrap_err()
            .to_string();
        assert!(error.contains("console"), "{error}");
        assert_eq!(
            plan_deletion(Some(&unmanaged()), FORGET),
            Ok(DeletionPlan::FilesOnly)
        );
        let lost = RegistrationState::new(ISSUER).with_intent(
            Action::Register,
            ISSUER,
            &metadata("n"),
            NOW,
        );
        assert!(plan_deletion(Some(&lost), NONE).is_err());
        assert_eq!(
            plan_deletion(Some(&lost), FORGET),
            Ok(DeletionPlan::FilesOnly)
        );
    }
}
