//! taskcluster-proxy's short form of Taskcluster's paths (taskcluster.md §7).

/// `/<service>/<version>/<path>` in its long form, below `/api/`; `None` for any other
/// target. The version is a `v` with digits, so that the deployment's other paths
/// (`/login/oauth/credentials`, `/schemas/queue/v1/…`) keep their meaning. Everything
/// behind it stays as it is, byte for byte.
pub(super) fn lengthen(target: &str) -> Option<String> {
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
    fn only_the_short_form_is_lengthened() {
        for (target, long) in [
            ("/queue/v1/task/x%2Fy?z=/", "/api/queue/v1/task/x%2Fy?z=/"),
            ("/worker-manager/v1/", "/api/worker-manager/v1/"),
            ("/auth/v12//a", "/api/auth/v12//a"),
        ] {
            assert_eq!(lengthen(target).as_deref(), Some(long));
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
            assert_eq!(lengthen(target), None, "{target}");
        }
    }
}
