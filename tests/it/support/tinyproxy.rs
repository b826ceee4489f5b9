//! A real outgoing proxy: tinyproxy, which can resolve names that this process cannot.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::wait::until;

const SET_UP: &str =
    "install the Debian packages tinyproxy and libnss-wrapper, or run `./test` once";

/// A running tinyproxy; killed when dropped.
pub(crate) struct Tinyproxy {
    port: u16,
    files: TempDir,
    _child: Child,
}

impl Tinyproxy {
    /// Starts a proxy for which each of `hosts` is this machine.
    pub(crate) async fn start(hosts: &[&str]) -> Self {
        Self::start_with(hosts, "").await
    }

    /// With further lines of configuration.
    pub(crate) async fn start_with(hosts: &[&str], lines: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        // tinyproxy takes no port 0.
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let log = files.path().join("log");
        let config = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nLogLevel Connect\nLogFile \"{}\"\n{lines}\n",
            log.display()
        );
        let write = |name: &str, content: String| {
            let path = files.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let hosts = hosts.iter().map(|host| format!("127.0.0.1 {host}\n"));
        let hosts = write("hosts", hosts.collect());
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(write("tinyproxy.conf", config))
            .env("LD_PRELOAD", nss_wrapper())
            .env("NSS_WRAPPER_HOSTS", hosts)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run tinyproxy ({error}): {SET_UP}"));
        until("tinyproxy to listen", async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self {
            port,
            files,
            _child: child,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The first lines of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.files.path().join("log")).unwrap();
        let requests = log.lines().filter_map(|line| line.split_once("): "));
        let requests = requests.map(|(_, request)| request.to_owned());
        requests.filter(|r| r.contains(" HTTP/")).collect()
    }

    /// The number of tunnels to `authority` that were asked for.
    pub(crate) fn tunnels(&self, authority: &str) -> usize {
        let expected = format!("CONNECT {authority} HTTP/1.1");
        self.requests().iter().filter(|r| **r == expected).count()
    }
}

fn nss_wrapper() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let paths = folders.map(|folder| folder.unwrap().path().join("libnss_wrapper.so"));
    let mut found = paths.filter(|path| path.exists());
    found
        .next()
        .unwrap_or_else(|| panic!("no libnss_wrapper.so: {SET_UP}"))
}
