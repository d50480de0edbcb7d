//! nginx as an origin: RTMP by its module, and files by HTTP under the names of streams.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{PATIENCE, Scratch, until};
use crate::{
    http::{Request, Url},
    netns::{Namespace, Process},
};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

/// A running nginx with what it wrote; it ends when dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    directory: Scratch,
    ip: Ipv4Addr,
}

impl Nginx {
    /// Where it listens for RTMP.
    pub const RTMP_PORT: u16 = 1935;
    /// Where it listens for HTTP.
    pub const HTTP_PORT: u16 = 8080;

    /// Starts one process in `namespace` and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(namespace: &Namespace, ip: Ipv4Addr) -> Result<Self> {
        ensure!(Path::new(MODULE).exists(), "{MODULE} is missing: run `cargo xtask setup`");
        let directory = Scratch::new("nginx")?;
        fs::create_dir(directory.path().join("live"))?;
        fs::write(directory.path().join("nginx.conf"), configuration(ip, directory.path()))?;
        let nginx = Self { process: namespace.spawn(command(directory.path()))?, directory, ip };
        let listens =
            until("nginx listens", PATIENCE, || Ok(sockets(namespace, &["-ltn"], Self::RTMP_PORT)? > 0));
        listens.with_context(|| nginx.log("error.log"))?;
        Ok(nginx)
    }

    /// A file below the root of HTTP, in which `live` is a directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A line for each RTMP session that has ended: client, command, app, name, arguments.
    #[must_use]
    pub fn sessions(&self) -> String {
        self.log("rtmp.log")
    }

    /// Waits until the video of a live stream has come, as its players need it.
    ///
    /// # Errors
    /// When it has not within [`PATIENCE`].
    pub fn wait_for_video(&self, namespace: &Namespace, stream: &str) -> Result<()> {
        let url = Url::parse(&format!("http://{}/stat", SocketAddr::from((self.ip, Self::HTTP_PORT))))?;
        let (begin, codec) = (format!("<name>{stream}</name>"), "<codec>H264</codec>");
        until("the origin has video", PATIENCE, || {
            let told = namespace.enter(|| Request::new("GET", url.clone()).send())?.body;
            let of_stream = told.split_once(&begin).map(|(_, rest)| rest.split("</stream>").next());
            Ok(of_stream.flatten().is_some_and(|told| told.contains(codec)))
        })
    }

    /// A line for each request that was answered by HTTP: method, path with its query, status.
    #[must_use]
    pub fn requests(&self) -> String {
        self.log("http.log")
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(PATIENCE).map(drop)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }
}

/// nginx as a cache of HLS in front of a server, as an operator puts it there; it ends when dropped.
#[derive(Debug)]
pub struct Cache {
    _process: Process,
    _directory: Scratch,
}

impl Cache {
    const PORT: u16 = 8081;

    /// Starts one process in `namespace`, on its loopback, in front of `server`, and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(namespace: &Namespace, server: SocketAddr) -> Result<Self> {
        let directory = Scratch::new("cache")?;
        fs::write(directory.path().join("nginx.conf"), cache_configuration(server, directory.path()))?;
        let process = namespace.spawn(command(directory.path()))?;
        let cache = Self { _process: process, _directory: directory };
        until("the cache listens", PATIENCE, || Ok(sockets(namespace, &["-ltn"], Self::PORT)? > 0))?;
        Ok(cache)
    }

    /// Where players in its namespace find what has this path at the server.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", SocketAddr::from((Ipv4Addr::LOCALHOST, Self::PORT)))
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "error.log"]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// How many TCP sockets at `port` a namespace has of those that `ss` shows with `options`.
///
/// # Errors
/// When `ss` fails.
pub fn sockets(namespace: &Namespace, options: &[&str], port: u16) -> Result<usize> {
    let filter = format!("sport = :{port}");
    let shown = namespace.run("ss", &[options, &["-H", &filter]].concat())?;
    Ok(shown.lines().count())
}

/// One process: SIGKILL leaves no worker behind.
fn configuration(ip: Ipv4Addr, directory: &Path) -> String {
    let (rtmp, http, root) = (Nginx::RTMP_PORT, Nginx::HTTP_PORT, directory.display());
    format!(
        "load_module {MODULE};\n\
         daemon off; master_process off; user root; pid {root}/nginx.pid; error_log {root}/error.log notice;\n\
         events {{ worker_connections 1024; }}\n\
         rtmp {{ access_log {root}/rtmp.log; server {{ listen {ip}:{rtmp}; chunk_size 4096;\n\
           application live {{ live on; idle_streams off; }} }} }}\n\
         http {{ log_format short '$request_method $request_uri $status'; access_log {root}/http.log short; root {root};\n\
           add_header Access-Control-Allow-Origin *; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
           fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
           server {{ listen {ip}:{http}; location = /stat {{ rtmp_stat all; }} }} }}\n"
    )
}

/// A playlist is kept for a second and a segment for long; of several that ask at once, one is let through.
fn cache_configuration(server: SocketAddr, directory: &Path) -> String {
    let (port, root) = (Cache::PORT, directory.display());
    format!(
        "daemon off; master_process off; user root; pid {root}/nginx.pid; error_log {root}/error.log notice;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
           fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
           proxy_cache_path {root}/kept keys_zone=hls:1m;\n\
           proxy_cache hls; proxy_cache_lock on; proxy_cache_lock_timeout 30s; proxy_cache_lock_age 30s;\n\
           proxy_cache_key $request_uri; proxy_set_header Host $http_host;\n\
           server {{ listen 127.0.0.1:{port};\n\
             location ~ \\.m3u8$ {{ proxy_pass http://{server}; proxy_cache_valid 200 1s; }}\n\
             location ~ \\.ts$ {{ proxy_pass http://{server}; proxy_cache_valid 200 10m; }} }} }}\n"
    )
}
