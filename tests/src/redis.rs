//! Redis as a fleet finds it: servers, Sentinels, clusters, each within a network namespace, so that ports are free.

mod sentinels;

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{
    live::{self, Scratch, finish},
    netns::{Namespace, Process},
};

pub use self::sentinels::Sentinels;

/// How long a server may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis server or Sentinel on loopback; it ends, and its directory goes, with this value.
#[derive(Debug)]
pub struct Redis<'a> {
    namespace: &'a Namespace,
    process: Process,
    /// Its port.
    pub port: u16,
    arguments: Vec<String>,
    /// What redis-cli needs to be let in.
    login: Vec<String>,
    directory: Scratch,
}

/// A certificate by an authority that nobody knows, for `localhost` and 127.0.0.1.
#[derive(Debug)]
pub struct Certificate(Scratch);

impl<'a> Redis<'a> {
    /// Starts a server that keeps nothing on disk, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(namespace: &'a Namespace, port: u16, options: &[&str]) -> Result<Self> {
        // Replicas are served without a wait for more of them.
        let plain = [
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
            "--port",
            &port.to_string(),
        ];
        let plain = plain.map(str::to_owned);
        let options = options.iter().map(|option| (*option).to_owned());
        Self::launch(namespace, port, plain.into_iter().chain(options).collect(), Vec::new())
    }

    /// The same, for others than this host too.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_open(namespace: &'a Namespace, port: u16, options: &[&str]) -> Result<Self> {
        Self::start(namespace, port, &[&["--bind", "0.0.0.0", "--protected-mode", "no"], options].concat())
    }

    /// Starts a server that speaks TLS alone.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_with_tls(namespace: &'a Namespace, port: u16, certificate: &Certificate) -> Result<Self> {
        let file = |name: &str| certificate.file(name).display().to_string();
        let (signed, key, authority) = (file("certificate.pem"), file("key.pem"), file("authority.pem"));
        let port_text = port.to_string();
        let options = [
            "--port",
            "0",
            "--tls-port",
            &port_text,
            "--tls-cert-file",
            &signed,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authority,
            "--tls-auth-clients",
            "no",
            "--save",
            "",
        ];
        let login = vec!["--tls".to_owned(), "--cacert".to_owned(), authority.clone()];
        Self::launch(namespace, port, options.map(str::to_owned).into(), login)
    }

    /// Starts a Sentinel that watches the master at `master` and moves it after half a second of silence.
    fn start_sentinel(
        namespace: &'a Namespace,
        port: u16,
        master: (Ipv4Addr, u16),
        quorum: usize,
    ) -> Result<Self> {
        let directory = Scratch::new("sentinel")?;
        let file = directory.path().join("sentinel.conf");
        let name = Sentinels::NAME;
        // A Sentinel writes into its configuration.
        let text = format!(
            "port {port}\nbind 0.0.0.0\nprotected-mode no\ndir {}\nsentinel monitor {name} {} {} {quorum}\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n",
            directory.path().display(),
            master.0,
            master.1
        );
        fs::write(&file, text)?;
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        Self::spawn(namespace, port, arguments, Vec::new(), directory)
    }

    /// Runs redis-cli against it, and tells what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(&self.login).args(arguments);
        Ok(finish(self.namespace, command)?.success()?.trim_end().to_owned())
    }

    /// Sends a signal: SIGSTOP makes a server that accepts and never answers.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it as a crash does.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(PATIENCE)?;
        Ok(())
    }

    /// Starts it again, empty, after it was killed.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restart(&mut self) -> Result<()> {
        self.process = run(self.namespace, &self.arguments)?;
        self.wait()
    }

    fn launch(namespace: &'a Namespace, port: u16, options: Vec<String>, login: Vec<String>) -> Result<Self> {
        let directory = Scratch::new("redis")?;
        let mut arguments: Vec<String> =
            ["--bind", "127.0.0.1", "--daemonize", "no", "--dir"].map(str::to_owned).into();
        arguments.push(directory.path().display().to_string());
        arguments.extend(options);
        Self::spawn(namespace, port, arguments, login, directory)
    }

    fn spawn(
        namespace: &'a Namespace,
        port: u16,
        arguments: Vec<String>,
        login: Vec<String>,
        directory: Scratch,
    ) -> Result<Self> {
        let process = run(namespace, &arguments)?;
        let mut redis = Self { namespace, process, port, arguments, login, directory };
        redis.wait()?;
        Ok(redis)
    }

    fn wait(&mut self) -> Result<()> {
        until("Redis answers", || Ok(self.cli(&["PING"]).is_ok_and(|answer| answer == "PONG")))
            .with_context(|| format!("Redis on port {} in {}", self.port, self.directory.path().display()))
    }
}

impl Certificate {
    /// Makes an authority and one with OpenSSL.
    ///
    /// # Errors
    /// When it cannot.
    pub fn new() -> Result<Self> {
        let made = Self(Scratch::new("tls")?);
        fs::write(made.file("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        made.openssl(&format!(
            "req -x509 {key} -days 2 -subj /CN=authority -keyout authority.key -out authority.pem"
        ))?;
        made.openssl(&format!("req {key} -subj /CN=localhost -keyout key.pem -out request.pem"))?;
        made.openssl(
            "x509 -req -in request.pem -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names \
             -out certificate.pem",
        )?;
        Ok(made)
    }

    /// Who signed it.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.file("authority.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        let done = command.args(arguments.split_whitespace()).current_dir(self.0.path()).output();
        let done = done.context("failed to start openssl")?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

/// Starts three masters without replicas and makes them a cluster.
///
/// # Errors
/// When they do not become one.
pub fn cluster<'a>(namespace: &'a Namespace, ports: [u16; 3]) -> Result<[Redis<'a>; 3]> {
    let options =
        ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-config-file", "nodes.conf"];
    let start = |port| Redis::start(namespace, port, &options);
    let nodes = [start(ports[0])?, start(ports[1])?, start(ports[2])?];
    let addresses = ports.map(|port| format!("127.0.0.1:{port}"));
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(addresses).args(["--cluster-replicas", "0", "--cluster-yes"]);
    finish(namespace, create)?.success()?;
    for node in &nodes {
        until("the cluster is complete", || {
            Ok(node.cli(&["CLUSTER", "INFO"])?.contains("cluster_state:ok"))
        })?;
    }
    Ok(nodes)
}

/// Runs a test inside a namespace, with a runtime whose threads are inside too.
///
/// # Panics
/// When no runtime can be made.
pub fn within<T: Send>(namespace: &Namespace, test: impl AsyncFnOnce() -> T + Send) -> T {
    namespace.enter(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build();
        runtime.expect("a runtime needs nothing but threads").block_on(test())
    })
}

/// Waits for a condition, for as long as a busy machine may need.
///
/// # Errors
/// When it does not come, or asking fails.
pub fn until(what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    live::until(what, PATIENCE, condition)
}

fn run(namespace: &Namespace, arguments: &[String]) -> Result<Process> {
    let mut command = Command::new("redis-server");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    namespace.spawn(command)
}
