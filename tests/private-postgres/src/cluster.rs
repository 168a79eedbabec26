//! A private server.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use crate::{Database, MOMENT, PATIENCE, SKIP, is_skipped, keeper, on, programs};

/// Folders of servers: this, and the number of the process that made them. Not in `target/`, which another user may not
/// be able to enter, and short: the path of a socket is.
const PREFIX: &str = "entrenar-pg-";

/// Starts the server, and ends it with us: SIGINT comes when the process that made it is gone, and takes the folder
/// along; SIGTERM is [`Cluster::stop`]. What a shell starts in the background is deaf to SIGQUIT until it asks for it: a
/// server that is only beginning is told again.
const SCRIPT: &str = r#"
home=$1; shift
end() { while [ "$!" ] && kill -QUIT $!; do sleep 0.05; done 2>/dev/null; }
trap 'end; rm -rf "$home"; exit' INT
trap 'end; exit' TERM
"$@" &
wait $!
"#;

/// Settings that make it quick: nothing of it must survive a crash of the machine.
const QUICK: [&str; 3] = ["fsync=off", "full_page_writes=off", "autovacuum=off"];

/// The one user that must show a password; make it first. All others are trusted.
pub const GUARDED: &str = "guarded";

/// A server with data of its own. Dropped, it ends and its data is gone.
pub struct Cluster {
    home: TempDir,
    programs: PathBuf,
    user: Option<User>,
    settings: Vec<String>,
    /// Where it listens, beside its socket.
    port: Option<u16>,
    server: Mutex<Option<Child>>,
}

/// Who a server is: PEM files.
pub struct Identity<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    /// Signs the certificates of those that may connect without a password; `None`: nobody need show one.
    pub clients_ca: Option<&'a Path>,
}

/// Whom the server runs as: it refuses to run as root.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Cluster {
    /// One for many tests. `None`: the test is to be skipped.
    ///
    /// Panics with what to install when there is no Postgres.
    pub fn quick() -> Option<Self> {
        Self::start_with(&QUICK, None, None)
    }

    /// One for many tests that also listens on a port of loopback, with these settings.
    pub(crate) fn listening(settings: &[&str]) -> Option<Self> {
        Self::start_with(&[&QUICK, settings].concat(), Some(free_port()), None)
    }

    /// One that syncs, for tests that stop it, and see what is left.
    pub fn durable() -> Option<Self> {
        Self::start_with(&[], None, None)
    }

    /// One that also listens on a port of loopback, and takes only encrypted connections there.
    pub fn encrypted(identity: &Identity<'_>) -> Option<Self> {
        Self::start_with(&QUICK, Some(free_port()), Some(identity))
    }

    fn start_with(
        settings: &[&str],
        port: Option<u16>,
        identity: Option<&Identity<'_>>,
    ) -> Option<Self> {
        if is_skipped() {
            return None;
        }
        let Some(programs) = programs::found() else {
            panic!(
                "Postgres is missing: run `cargo xtask test`, which installs the Debian package postgresql, \
                 name its folder in PG_BINDIR, name a server in TEST_DATABASE_URL, or set {SKIP}=1"
            );
        };
        sweep();
        let user = unprivileged();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let home = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in("/tmp")
            .expect("a folder in /tmp");
        if let Some(User { uid, gid }) = &user {
            chown(home.path(), Some(*uid), Some(*gid)).expect("given away");
        }
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).expect("set");
        let cluster = Self {
            home,
            programs,
            user,
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            port,
            server: Mutex::new(None),
        };
        cluster.init();
        if let Some(identity) = identity {
            cluster.encrypt(identity);
        }
        cluster.start();
        Some(cluster)
    }

    /// A fresh database on it.
    pub async fn database(&self) -> Database {
        on(&self.options(), false).await
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(self.home.path())
            .username("postgres")
            .database("postgres");
        match self.port {
            // It is part of the socket's name.
            Some(port) => options.port(port),
            None => options,
        }
    }

    /// Where it listens, if it does.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    fn init(&self) {
        let mut command = Command::new(self.programs.join("initdb"));
        command.args(["--no-sync", "--no-instructions", "--auth=trust"]);
        command.args(["--encoding=UTF8", "--locale=C", "--username=postgres"]);
        command.arg("--pgdata").arg(self.data());
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        let made = command.current_dir("/").output().expect("initdb runs");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb: {said}");
        let access = self.data().join("pg_hba.conf");
        let rest = fs::read_to_string(&access).expect("made by initdb");
        let guarded = format!("local all {GUARDED} scram-sha-256\n{rest}");
        fs::write(&access, guarded).expect("written");
    }

    /// Gives it a certificate, and closes the door to what is not encrypted.
    fn encrypt(&self, identity: &Identity<'_>) {
        let files = [
            ("server.crt", Some(identity.certificate)),
            ("server.key", Some(identity.key)),
            ("clients.crt", identity.clients_ca),
        ];
        let mut settings = "ssl = on\n".to_owned();
        for (name, from) in files {
            let Some(from) = from else { continue };
            let to = self.data().join(name);
            fs::copy(from, &to).expect("copied");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("set");
            if let Some(User { uid, gid }) = self.user {
                chown(&to, Some(uid), Some(gid)).expect("given away");
            }
        }
        let auth = if identity.clients_ca.is_some() {
            settings += "ssl_ca_file = 'clients.crt'\n";
            "trust clientcert=verify-ca"
        } else {
            "trust"
        };
        let access = self.data().join("pg_hba.conf");
        let door = format!(
            "local all all trust\nhostssl all all 127.0.0.1/32 {auth}\nhostssl all all ::1/128 {auth}\n"
        );
        fs::write(&access, door).expect("written");
        let configuration = self.data().join("postgresql.conf");
        let mut written = fs::read_to_string(&configuration).expect("made by initdb");
        written += &settings;
        fs::write(&configuration, written).expect("written");
    }

    /// Opens the door to what is not encrypted, too.
    pub fn allow_plain(&self) {
        let access = self.data().join("pg_hba.conf");
        fs::write(
            &access,
            "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n",
        )
        .expect("written");
        self.stop();
        self.start();
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Starts it, again after [`Cluster::stop`]. It may take a moment until it answers.
    pub fn start(&self) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if let Some(User { uid, gid }) = self.user {
            command.arg(format!("--reuid={uid}"));
            command.arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.args(["sh", "-c", SCRIPT, "sh"]);
        command.arg(self.home.path());
        command.arg(self.programs.join("postgres"));
        command.arg("-D").arg(self.data());
        command.arg("-k").arg(self.home.path());
        let listens = match self.port {
            Some(port) => format!("listen_addresses=localhost -c port={port}"),
            None => "listen_addresses=".to_owned(),
        };
        command.args(["-c", "max_connections=200", "-c"]);
        command.args(listens.split(' '));
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"))
            .expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // A server that connects to another one looks for certificates there.
        command.current_dir("/").env("HOME", self.home.path());
        let server = keeper::spawn(command).expect("setpriv runs");
        *self.server() = Some(server);
    }

    /// Stops it at once, as a crash would: connections break, and the next start recovers.
    pub fn stop(&self) {
        if let Some(mut server) = self.server().take() {
            let pid = server.id().to_string();
            let sent = Command::new("kill").args(["-TERM", &pid]).status();
            assert!(sent.expect("kill runs").success());
            wait_for(&mut server);
        }
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Panics when it takes too long, which says more than a test that never ends.
fn wait_for(server: &mut Child) {
    let mut left = PATIENCE;
    while server.try_wait().expect("it is ours").is_none() {
        left = left.checked_sub(MOMENT).expect("the server ends in time");
        std::thread::sleep(MOMENT);
    }
}

/// A port of loopback that nobody listens on.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("it is bound").port()
}

/// `None`: we are not root ourselves.
fn unprivileged() -> Option<User> {
    use std::os::unix::fs::MetadataExt as _;
    let ourselves = fs::metadata("/proc/self").expect("Linux").uid();
    if ourselves != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("accounts");
    let account = |name: &str| {
        let line = accounts
            .lines()
            .find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        Some(User {
            uid: fields.next()??,
            gid: fields.next()??,
        })
    };
    let user = account("postgres").or_else(|| account("nobody"));
    Some(user.expect("an account without privileges"))
}

/// Removes what is left of processes that were killed together with what would have removed it.
fn sweep() {
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another process may be sweeping too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell gives what it starts in the background deaf ears for SIGQUIT, until the server has grown its own.
    #[test]
    fn it_can_be_stopped_at_every_moment_of_its_start() {
        let Some(cluster) = Cluster::quick() else {
            return;
        };
        for spins in 0..24 {
            cluster.stop();
            cluster.start();
            for _ in 0..spins {
                // As long as it takes to start a process: that much later into the start.
                let looked = Command::new("true").status();
                assert!(looked.expect("true runs").success());
            }
        }
        cluster.stop();
        let home = cluster.home.path().display().to_string();
        let processes = fs::read_dir("/proc").expect("Linux").flatten();
        let commands = processes.filter_map(|p| fs::read_to_string(p.path().join("cmdline")).ok());
        let left: Vec<String> = commands.filter(|c| c.contains(&home)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
