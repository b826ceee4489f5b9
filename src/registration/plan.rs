//! What is to be done, given what is wanted and what the state file says.

use super::metadata::ClientMetadata;
use super::state::{Action, Intent, Registration, RegistrationState};
use crate::clock::UnixMillis;

/// What the operator allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Register anew though the old client cannot be changed or removed.
    pub replace: bool,
    /// Whatever was begun and not seen to end is taken as dealt with.
    pub forget: bool,
}

/// The one thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistrationPlan {
    /// The client is as wanted.
    Unchanged(Registration),
    /// RFC 7591 §3.1. With the client that is given up, if there is one.
    Register {
        /// Stays at the issuer, unmanaged.
        replaces: Option<String>,
    },
    /// RFC 7592 §2.2.
    Update(Registration),
}

/// What deleting takes.
#[derive(Clone, Debug, PartialEq)]
pub enum DeletionPlan {
    /// RFC 7592 §2.3.
    AtIssuer {
        /// The client.
        registration: Box<Registration>,
        /// An earlier attempt may have done it already.
        maybe_deleted: bool,
    },
    /// Only the files here.
    FilesOnly,
    /// There is nothing.
    NotRegistered,
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Another issuer's client is in the state.
    #[error(
        "the state is that of client {client} at {issuer}. Name another --state for the other \
         issuer, or give --replace to give that client up"
    )]
    OtherIssuer {
        /// Its issuer.
        issuer: String,
        /// Its identifier.
        client: String,
    },
    /// It was asked to register, and no answer was seen.
    #[error(
        "a registration of {name} at {issuer} was begun at {begun_at} and its answer was never seen: \
         the issuer may or may not have made the client. Look there for a client of that name and \
         time and delete it if it is there (its secret is lost); then run this again with --forget"
    )]
    Unresolved {
        /// Where.
        issuer: String,
        /// The client's name, for finding it.
        name: String,
        /// When.
        begun_at: String,
    },
    /// Deleting was begun.
    #[error(
        "deleting this client was begun at {begun_at} and its answer was never seen. Finish it with \
         `hawkgate register --delete`, or give --forget to go on with the client"
    )]
    Deleting {
        /// When.
        begun_at: String,
    },
    /// It differs and cannot be changed.
    #[error(
        "client {client} was registered with other metadata, and its issuer gave no registration \
         token to change it with. TenantChange it in the issuer's own console, or give --replace to \
         register a new client and give this one up"
    )]
    Unmanageable {
        /// Its identifier.
        client: String,
    },
    /// It is to be deleted and cannot be.
    #[error(
        "client {client} cannot be deleted from here: its issuer gave no registration token. Delete \
         it in the issuer's own console, then give --forget to remove the files here"
    )]
    Undeletable {
        /// Its identifier.
        client: String,
    },
}

/// What makes us the client at `issuer` that `wanted` describes.
///
/// # Errors
/// When only the operator can plan_registration.
pub fn plan_registration(
    state: Option<&RegistrationState>,
    issuer: &str,
    wanted: &ClientMetadata,
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
        // A PUT may be sent again: it says the whole, not a difference.
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
        let refusal = PlanError::OtherIssuer { issuer, client };
        return if overrides.replace {
            Ok(abandon)
        } else {
            Err(refusal)
        };
    }
    let as_wanted =
        registration.metadata == *wanted && intent.is_none() && !registration.secret_expired(now);
    if as_wanted {
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
        name: name.map_or_else(|| "a client without a name".into(), |n| format!("{n:?}")),
        begun_at: intent.begun_at.clone(),
    }
}

/// What deleting our client takes.
///
/// # Errors
/// When the issuer gave no way to.
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
    let begun = |action| state.intent.as_ref().filter(|i| i.action == action);
    if let Some(intent) = begun(Action::Register) {
        return Err(unresolved(intent));
    }
    match &state.registration {
        None => Ok(DeletionPlan::FilesOnly),
        Some(registration) if registration.management().is_some() => Ok(DeletionPlan::AtIssuer {
            registration: Box::new(registration.clone()),
            maybe_deleted: begun(Action::Delete).is_some(),
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
    const NO: Overrides = Overrides {
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

    fn step(
        state: &RegistrationState,
        name: &str,
        overrides: Overrides,
    ) -> Result<RegistrationPlan, PlanError> {
        plan_registration(Some(state), ISSUER, &metadata(name), overrides, NOW)
    }

    fn orphaning() -> RegistrationPlan {
        RegistrationPlan::Register {
            replaces: Some("c1".into()),
        }
    }

    #[test]
    fn the_same_again_is_nothing_to_do() {
        let create = plan_registration(None, ISSUER, &metadata("n"), NO, NOW).unwrap();
        assert_eq!(create, RegistrationPlan::Register { replaces: None });
        let nothing = RegistrationPlan::Unchanged(registration("n"));
        assert_eq!(step(&registered(), "n", NO), Ok(nothing.clone()));
        assert_eq!(step(&registered(), "n", REPLACE), Ok(nothing.clone()));
        assert!(step(&unmanaged(), "n", NO).is_ok());
    }

    #[test]
    fn a_difference_is_put_where_it_can_be() {
        assert_eq!(
            step(&registered(), "m", NO),
            Ok(RegistrationPlan::Update(registration("n")))
        );
        assert_eq!(step(&registered(), "m", REPLACE), Ok(orphaning()));
        let refused = step(&unmanaged(), "m", NO).unwrap_err();
        assert!(refused.to_string().contains("--replace"));
        assert_eq!(step(&unmanaged(), "m", REPLACE), Ok(orphaning()));
    }

    #[test]
    fn another_issuer_is_not_overwritten() {
        let other = |overrides| {
            plan_registration(
                Some(&registered()),
                "https://b/",
                &metadata("n"),
                overrides,
                NOW,
            )
        };
        assert!(other(NO).unwrap_err().to_string().contains(ISSUER));
        assert_eq!(other(REPLACE), Ok(orphaning()));
    }

    #[test]
    fn an_ended_secret_is_renewed() {
        let mut ended = registration("n");
        ended.client_secret_expires_at = 1;
        let state = RegistrationState::new(ISSUER).with_registration(ISSUER, ended.clone());
        assert_eq!(step(&state, "n", NO), Ok(RegistrationPlan::Update(ended)));
    }

    #[test]
    fn what_was_begun_decides_first() {
        let begun = |state: RegistrationState, action| {
            state.with_intent(action, ISSUER, &metadata("n"), NOW)
        };
        let lost = begun(RegistrationState::new(ISSUER), Action::Register);
        for overrides in [NO, REPLACE] {
            let said = step(&lost, "n", overrides).unwrap_err().to_string();
            assert!(
                said.contains("\"n\"") && said.contains("--forget"),
                "{said}"
            );
        }
        assert_eq!(
            step(&lost, "n", FORGET),
            Ok(RegistrationPlan::Register { replaces: None })
        );
        let again = step(&begun(registered(), Action::Update), "n", NO);
        assert_eq!(again, Ok(RegistrationPlan::Update(registration("n"))));
        let deleting = begun(registered(), Action::Delete);
        let said = step(&deleting, "n", NO).unwrap_err().to_string();
        assert!(said.contains("--delete"), "{said}");
        assert_eq!(
            step(&deleting, "n", FORGET),
            Ok(RegistrationPlan::Unchanged(registration("n")))
        );
    }

    #[test]
    fn deleting_needs_a_way() {
        let at_issuer = |maybe_deleted| DeletionPlan::AtIssuer {
            registration: Box::new(registration("n")),
            maybe_deleted,
        };
        assert_eq!(plan_deletion(None, NO), Ok(DeletionPlan::NotRegistered));
        assert_eq!(plan_deletion(Some(&registered()), NO), Ok(at_issuer(false)));
        let again = registered().with_intent(Action::Delete, ISSUER, &metadata("n"), NOW);
        assert_eq!(plan_deletion(Some(&again), NO), Ok(at_issuer(true)));
        let said = plan_deletion(Some(&unmanaged()), NO)
            .unwrap_err()
            .to_string();
        assert!(said.contains("console"), "{said}");
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
        assert!(plan_deletion(Some(&lost), NO).is_err());
        assert_eq!(
            plan_deletion(Some(&lost), FORGET),
            Ok(DeletionPlan::FilesOnly)
        );
    }
}
