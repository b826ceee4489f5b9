//! Which browser applications may read the endpoint's responses (CORS protocol, Fetch standard).

use crate::gateway::local_response::LocalResponse;

/// Allows every origin.
pub const ANY_ORIGIN: &str = "*";

/// `Access-Control-Max-Age`: how long a browser may cache a preflight response, in seconds.
const MAX_AGE: &str = "600";

/// The allowed origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// None: browsers withhold responses from scripts of other origins.
    #[default]
    None,
    /// These origins, compared byte for byte.
    Listed(Vec<String>),
    /// Every origin.
    Any,
}

impl AllowedOrigins {
    /// Converts the configured list, which may contain [`ANY_ORIGIN`].
    pub fn new(list: Vec<String>) -> Self {
        if list.is_empty() {
            Self::None
        } else if list.iter().any(|origin| origin == ANY_ORIGIN) {
            Self::Any
        } else {
            Self::Listed(list)
        }
    }

    /// Adds the headers that let a script from `origin` read the response.
    /// `Access-Control-Allow-Credentials` is never sent: scripts send the bearer token
    /// themselves, and cookies are not used.
    pub(super) fn add_headers(
        &self,
        mut response: LocalResponse,
        origin: Option<&[u8]>,
        preflight: bool,
    ) -> LocalResponse {
        if let Self::Listed(_) = self {
            // The response depends on the origin, so a cache must not serve it to another one.
            response = response.header("vary", "Origin");
        }
        let Some(allowed) = origin.and_then(|origin| self.allow_origin(origin)) else {
            return response;
        };
        response = response.header("access-control-allow-origin", allowed);
        if preflight {
            response = response
                .header("access-control-allow-methods", "GET")
                .header("access-control-allow-headers", "Authorization")
                .header("access-control-max-age", MAX_AGE);
        }
        response
    }

    fn allow_origin<'a>(&'a self, origin: &[u8]) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::Listed(list) => list
                .iter()
                .find(|allowed| allowed.as_bytes() == origin)
                .map(String::as_str),
            Self::Any => Some(ANY_ORIGIN),
        }
    }
}
