//! Socket activation: the program under a service manager that holds its listening sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Timeout of blocking reads.
const DEADLINE: Duration = Duration::from_mins(1);

/// A directory with a configuration, and the socket for `sd_notify` messages.
struct ServiceUnit {
    folder: TempDir,
    manager: UnixDatagram,
}

impl ServiceUnit {
    fn new(listen: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(DEADLINE)).unwrap();
        // Nothing listens at the upstream: a 502 is enough of a response.
        let text = format!(
            "[server]\nlisten = [\"{listen}\"]\nadmin = \"127.0.0.1:0\"\n\n[[route]]\nname = \"r\"\npath = \"/\"\n\
             anonymous = true\nupstream = \"http://127.0.0.1:9\"\n"
        );
        std::fs::write(folder.path().join("hawkgate.toml"), text).unwrap();
        Self { folder, manager }
    }

    /// Starts the program with `socket` as file descriptor 3, as systemd does.
    fn start(&self, socket: OwnedFd) -> Program {
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" run --config hawkgate.toml";
        let child = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_hawkgate")])
            .current_dir(self.folder.path())
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .stdin(Stdio::from(socket))
            .stderr(Stdio::piped())
            .spawn();
        Program(child.unwrap())
    }

    fn wait_for_line(&self, state: &str) {
        let mut buffer = [0; 100];
        let read = self.manager.recv(&mut buffer).expect(state);
        let received = std::str::from_utf8(&buffer[..read]).unwrap();
        assert_eq!(received.trim_end(), state);
    }
}

/// Killed when dropped.
struct Program(Child);

impl Program {
    fn terminate(&self) {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn read_all(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_connection_queued_at_an_inherited_socket_survives_a_restart() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let unit = ServiceUnit::new(&address.to_string());
    let mut first = unit.start(socket.try_clone().unwrap().into());
    unit.wait_for_line("READY=1");
    let mut stream = connect(address);
    stream.write_all(REQUEST).unwrap();
    assert!(read_all(stream).starts_with("HTTP/1.1 502"));
    first.terminate();
    unit.wait_for_line("STOPPING=1");
    assert!(first.0.wait().unwrap().success());

    // While nothing runs, connections queue at the socket.
    let mut stream = connect(address);
    stream.write_all(REQUEST).unwrap();
    let _second = unit.start(socket.into());
    unit.wait_for_line("READY=1");
    assert!(read_all(stream).starts_with("HTTP/1.1 502"));
}

#[test]
fn an_inherited_unix_socket_is_not_removed_on_exit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("passed.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let unit = ServiceUnit::new(&format!("unix:{}", path.display()));
    let mut program = unit.start(socket.into());
    unit.wait_for_line("READY=1");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(REQUEST).unwrap();
    assert!(read_all(stream).starts_with("HTTP/1.1 502"));
    program.terminate();
    assert!(program.0.wait().unwrap().success());
    assert!(Path::new(&path).exists());
}

#[test]
fn an_inherited_socket_that_is_not_a_configured_listener_is_refused() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let unit = ServiceUnit::new("127.0.0.1:0");
    let mut program = unit.start(socket.into());
    let stderr = read_all(program.0.stderr.take().unwrap());
    assert_eq!(program.0.wait().unwrap().code(), Some(1));
    assert!(
        stderr.contains(&address.to_string()) && stderr.contains("server.listen"),
        "{stderr}"
    );
}

/// Binding the wildcard address would fail as well, with a misleading error.
#[test]
fn an_inherited_socket_at_another_address_is_refused_before_binding() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let unit = ServiceUnit::new(&format!("0.0.0.0:{}", address.port()));
    let mut program = unit.start(socket.into());
    let stderr = read_all(program.0.stderr.take().unwrap());
    assert_eq!(program.0.wait().unwrap().code(), Some(1));
    assert!(
        stderr.contains(&address.to_string()) && stderr.contains("LISTEN_FDS"),
        "{stderr}"
    );
}

/// The units of `conf/systemd` match the program.
#[test]
fn the_systemd_units_match_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join("conf").join(name)).unwrap();
    let values = |unit: &str, key: &str| -> Vec<String> {
        let values = unit
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.map(str::to_owned).collect()
    };
    let service = read("systemd/hawkgate.service");
    let start = values(&service, "ExecStart").remove(0);
    let (program, arguments) = start.split_once(' ').unwrap();
    assert_eq!(program, "hawkgate");
    let arguments = arguments.replace("/etc/hawkgate/hawkgate.toml", "conf/hawkgate.toml");
    let printed = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
        .args(arguments.split(' '))
        .arg("--print-config")
        .current_dir(root)
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    for address in values(&read("systemd/hawkgate.socket"), "ListenStream") {
        assert!(
            printed.contains(&format!("\"{address}\"")),
            "{address} in {printed}"
        );
    }
    assert!(printed.contains("drain = \"30s\"") && printed.contains("drain_delay = \"0s\""));
    assert_eq!(values(&service, "TimeoutStopSec"), ["45"]);
}
