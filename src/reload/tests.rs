//! Tests of fingerprints, and of reloads with a target that only records its calls.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;

use tempfile::TempDir;
use tokio::sync::watch as channel;

use super::*;

const TEXT: &str = "[[route]]\nname = \"r\"\npath = \"/\"\nanonymous = true\nupstream = \"https://a.example.com\"\n";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn stamps_compare_only_the_content_of_files() {
    let folder = folder();
    let path = folder.path().join("file");
    let absent = Fingerprints::of([path.as_path()]);
    assert_eq!(absent, absent.again());
    fs::write(&path, "one").unwrap();
    let one = absent.again();
    assert_ne!(absent, one);
    assert_eq!(
        one.changed_since(&absent).collect::<Vec<_>>(),
        [path.as_path()]
    );
    // The same content in another file.
    let other = folder.path().join("other");
    fs::write(&other, "one").unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(one, one.again());
    // Content of the same length, written in quick succession.
    let mut before = one;
    for content in ["two", "six", "ten"] {
        fs::write(&path, content).unwrap();
        let now = before.again();
        assert_ne!(before, now, "{content}");
        before = now;
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(before.again(), absent);
}

#[test]
fn links_are_followed_and_special_files_are_not_read() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("v1")).unwrap();
    fs::create_dir(at("v2")).unwrap();
    fs::write(at("v1/key"), "first").unwrap();
    fs::write(at("v2/key"), "second").unwrap();
    symlink("v1", at("data")).unwrap();
    symlink("data/key", at("key")).unwrap();
    let key = at("key");
    let first = Fingerprints::of([key.as_path()]);
    symlink("v2", at("data_new")).unwrap();
    fs::rename(at("data_new"), at("data")).unwrap();
    assert_ne!(first, first.again());
    let special = Fingerprints::of([Path::new("/dev/zero"), folder.path()]);
    assert_eq!(special, special.again());
}

#[test]
fn large_files_are_compared_by_size_and_times() {
    let folder = folder();
    let path = folder.path().join("large");
    fs::write(&path, vec![b'x'; 5 * 1024 * 1024]).unwrap();
    let before = Fingerprints::of([path.as_path()]);
    assert_eq!(before, before.again());
    fs::write(&path, vec![b'x'; 5 * 1024 * 1024 + 1]).unwrap();
    assert_ne!(before, before.again());
}

#[test]
fn debug_output_shows_no_digest() {
    let folder = folder();
    let path = folder.path().join("secret");
    fs::write(&path, "hunter2").unwrap();
    let shown = format!("{:?}", Fingerprints::of([path.as_path()]));
    assert!(shown.contains("content: Digest,"), "{shown}");
}

#[test]
fn a_file_without_a_stamp_counts_as_absent() {
    let known = Fingerprints::of([Path::new("/proc/self/nowhere")]);
    let none = Fingerprints::default().only([Path::new("/proc/self/nowhere")]);
    assert_eq!(known, none);
    assert_eq!(none.and(known.clone()), known);
}

/// Replaces the file atomically, so that no check finds a partial write.
fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let next = path.with_extension("next");
    fs::write(&next, content).unwrap();
    fs::rename(next, path).unwrap();
}

/// Records the configurations that it is given.
struct RecordingTarget {
    server: Server,
    routes: Mutex<Vec<String>>,
    ended: channel::Sender<(u32, u32)>,
}

impl RecordingTarget {
    fn new(server: Server) -> Arc<Self> {
        Arc::new(Self {
            server,
            routes: Mutex::default(),
            ended: channel::Sender::new((0, 0)),
        })
    }

    /// Waits until `ended` reloads have succeeded and failed, respectively.
    async fn until(&self, ended: (u32, u32)) {
        let mut seen = self.ended.subscribe();
        let reached = seen.wait_for(|seen| *seen == ended);
        let timely = tokio::time::timeout(Duration::from_mins(1), reached).await;
        timely.expect("reloads in time").unwrap();
    }
}

#[async_trait]
impl Target for RecordingTarget {
    fn server(&self) -> &Server {
        &self.server
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    async fn apply(&self, config: Config, _: &Fingerprints) -> Result<Applied, String> {
        let name = config.routes[0].name.to_string();
        if name == "unusable" {
            return Err("unusable".into());
        }
        self.routes.lock().unwrap().push(name);
        Ok(Applied::default())
    }

    fn ended(&self, result: ReloadResult) {
        self.ended.send_modify(|(succeeded, failed)| match result {
            ReloadResult::Success => *succeeded += 1,
            ReloadResult::Invalid => *failed += 1,
        });
    }
}

#[tokio::test]
async fn each_state_of_the_files_is_loaded_once() {
    let folder = folder();
    let path = folder.path().join("hawkgate.toml");
    replace(&path, TEXT);
    let Loaded {
        config,
        fingerprints,
        ..
    } = load(&path, None).unwrap();
    let target = RecordingTarget::new(config.server);
    let shared = Arc::clone(&target) as Arc<dyn Target>;
    let every = Some(Duration::from_millis(5));
    let reloads = start(path.clone(), fingerprints, every, shared);

    replace(&path, TEXT.replace("\"r\"", "\"two\""));
    target.until((1, 0)).await;
    replace(&path, "not TOML");
    target.until((1, 1)).await;
    replace(&path, TEXT.replace("\"r\"", "\"unusable\""));
    target.until((1, 2)).await;
    // On request even without a change.
    reloads.request();
    target.until((1, 3)).await;
    fs::remove_file(&path).unwrap();
    target.until((1, 4)).await;
    replace(&path, TEXT.replace("\"r\"", "\"three\""));
    target.until((2, 4)).await;
    assert_eq!(*target.routes.lock().unwrap(), ["two", "three"]);
}

#[tokio::test]
async fn files_that_an_invalid_configuration_refers_to_are_watched() {
    let folder = folder();
    let path = folder.path().join("hawkgate.toml");
    replace(&path, TEXT);
    let Loaded {
        config,
        fingerprints,
        ..
    } = load(&path, None).unwrap();
    let target = RecordingTarget::new(config.server);
    let shared = Arc::clone(&target) as Arc<dyn Target>;
    let _reloads = start(
        path.clone(),
        fingerprints,
        Some(Duration::from_millis(5)),
        shared,
    );
    let with_secret = format!(
        "{TEXT}issuers = []\n[[source]]\nname = \"s\"\nkind = \"taskcluster-static\"\nclient_id = \"c\"\n\
         access_token = {{ file = \"token\" }}\n"
    );
    replace(&path, with_secret);
    target.until((0, 1)).await;
    replace(&folder.path().join("token"), "an-access-token");
    target.until((1, 1)).await;
}

#[test]
fn keys_that_need_a_restart_are_listed() {
    let folder = folder();
    let path = folder.path().join("hawkgate.toml");
    replace(&path, TEXT);
    let running = load(&path, None).unwrap().config;
    assert_eq!(restart_needed(&running, &running), Vec::<&str>::new());
    let all = "[server]\nlisten = [\"127.0.0.1:1\"]\nadmin = \"127.0.0.1:2\"\ndrain = \"1s\"\ndrain_delay = \"1s\"\n\
               startup_grace = \"1s\"\nthreads = 3\nlocal_hosts = [\"h\"]\n[limits]\nheader_bytes = \"16KiB\"\nurl_bytes = \"1KiB\"\n\
               header_timeout = \"3s\"\nbody_timeout = \"3s\"\nkeepalive_timeout = \"3s\"\nconnections = 7\nconnections_per_address = 0\n\
               body = \"1KiB\"\nmin_body_rate = \"1KiB\"\nrequests_in_flight = 9\nreplay_body = \"1KiB\"\nreplay_memory = \"1MiB\"\n[log]\nformat = \"text\"\nlevel = \"debug\"\n";
    replace(&path, format!("{TEXT}{all}"));
    let new = load(&path, None).unwrap().config;
    let keys = restart_needed(&running, &new);
    assert_eq!(keys.len(), 16, "{keys:?}");
    for live in [
        "limits.body",
        "limits.replay_body",
        "limits.requests_in_flight",
        "server.local_hosts",
    ] {
        assert!(!keys.contains(&live));
    }
    let limits = applicable(&running.limits, &new.limits);
    assert_eq!((limits.body, limits.replay_body), (Some(1024), 1024));
    assert_eq!(limits.connections, running.limits.connections);
    let requests = (
        limits.requests_in_flight,
        limits.requests_in_flight_per_address,
    );
    assert_eq!(
        (requests, limits.min_body_rate.bytes_per_second),
        ((9, 5), 1024)
    );
    let server = applicable_server(&running.server, &new.server);
    assert_eq!(server.local_hosts, ["h"]);
    assert_eq!(server.listen, running.server.listen);
}
