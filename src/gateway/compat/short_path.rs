//! taskcluster-proxy's short form of Taskcluster API paths.

/// Expands `/<service>/<version>/<path>` to the same target under `/api/`; `None` for any other
/// target. The version must be `v` and digits, so that the deployment's other paths
/// (`/login/oauth/credentials`, `/schemas/queue/v1/…`) keep their meaning. The rest of the target
/// is preserved byte for byte.
pub(in crate::gateway) fn expand(target: &str) -> Option<String> {
    let mut parts = target.strip_prefix('/')?.splitn(3, '/');
    let (service, version, _) = (parts.next()?, parts.next()?, parts.next()?);
    let named = service.starts_with(|c: char| c.is_ascii_lowercase())
        && service
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let number = version.strip_prefix('v')?;
    let versioned = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (named && versioned && service != "api").then(|| format!("/api{target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_paths_are_expanded() {
        for (target, long) in [
            ("/queue/v1/task/x%2Fy?z=/", "/api/queue/v1/task/x%2Fy?z=/"),
            ("/worker-manager/v1/", "/api/worker-manager/v1/"),
            ("/auth/v12//a", "/api/auth/v12//a"),
        ] {
            assert_eq!(expand(target).as_deref(), Some(long));
        }
        for target in [
            "/api/queue/v1/ping",
            "/api/v1/x",
            "/queue/v1",
            "/queue/v1?a/b/c",
            "/queue?/v1/",
            "/queue/v/x",
            "/queue/1/x",
            "/queue/v1x/x",
            "/queue/v1%2F/x",
            "/que%75e/v1/x",
            "/queue.example.com/v1/x",
            "/Queue/v1/x",
            "//v1/x",
            "/-/v1/x",
            "/login/oauth/credentials",
            "/schemas/queue/v1/x.json",
            "/",
            "*",
            "",
        ] {
            assert_eq!(expand(target), None, "{target}");
        }
    }
}
