//! Which browser applications may read the endpoint's answers (the Fetch standard, "CORS
//! protocol").

use crate::gateway::served::Served;

/// Stands for every origin.
pub const ANY_ORIGIN: &str = "*";

/// How long a browser may remember what a preflight said, in seconds.
const MAX_AGE: &str = "600";

/// The origins that may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// None: browsers keep the answers from every other origin's scripts.
    #[default]
    None,
    /// These, compared whole.
    These(Vec<String>),
    /// All.
    Any,
}

impl AllowedOrigins {
    /// From the configuration's list.
    pub fn new(list: Vec<String>) -> Self {
        if list.is_empty() {
            Self::None
        } else if list.iter().any(|origin| origin == ANY_ORIGIN) {
            Self::Any
        } else {
            Self::These(list)
        }
    }

    /// Adds to an answer what lets the script that asked, from `origin`, read it.
    /// `Access-Control-Allow-Credentials` is never sent: the bearer token is the script's
    /// own, and cookies mean nothing here.
    pub(super) fn permit(
        &self,
        mut served: Served,
        origin: Option<&[u8]>,
        preflight: bool,
    ) -> Served {
        if let Self::These(_) = self {
            // Whoever did not ask from there must not be given a cached copy.
            served = served.header("vary", "Origin");
        }
        let Some(allowed) = origin.and_then(|origin| self.allowing(origin)) else {
            return served;
        };
        served = served.header("access-control-allow-origin", allowed);
        if preflight {
            served = served
                .header("access-control-allow-methods", "GET")
                .header("access-control-allow-headers", "Authorization")
                .header("access-control-max-age", MAX_AGE);
        }
        served
    }

    fn allowing<'a>(&'a self, origin: &[u8]) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::These(list) => list
                .iter()
                .find(|allowed| allowed.as_bytes() == origin)
                .map(String::as_str),
            Self::Any => Some(ANY_ORIGIN),
        }
    }
}
