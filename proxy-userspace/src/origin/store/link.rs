//! A connection to Redis that works: to one server, to the master that Sentinels name, or to a cluster.

use std::{collections::HashMap, fmt, fs, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates, Value,
    aio::{MultiplexedConnection, PubSub},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
};
use tokio::time::timeout;

use crate::config::{self, RedisNode, RedisServers, RedisTls, Secret};

/// What one command was answered: a value, or an error of its own.
pub(super) type Reply = Result<Value, Answer>;

/// An error that Redis answered a command with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: String,
    pub(super) text: String,
}

/// Sends commands; cheap to clone.
#[derive(Clone)]
pub(super) enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A new connection, and the one that notices come by.
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) notices: PubSub,
    /// Whom Sentinels named.
    pub(super) master: Option<(String, u16)>,
}

impl Answer {
    /// The reason why Redis does not do what it is asked for, if it is in the state of Redis and not in the call.
    pub(super) fn refusal(&self) -> Option<String> {
        const REFUSALS: [&str; 5] = ["OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM"];
        // Before Redis 7 an error within a script is ERR, and its code is in the text.
        let is_one = |code: &&&str| self.code == **code || self.text.contains(&format!("-{code} "));
        let code = REFUSALS.iter().find(is_one)?;
        Some(if self.code == *code { self.to_string() } else { format!("{code} {}", self.text) })
    }

    /// Whether it answers neither writes nor reads.
    pub(super) fn is_unready(&self) -> bool {
        matches!(self.code.as_str(), "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "NOAUTH")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// Connects to what the settings name, and subscribes to `channel`.
pub(super) async fn open(settings: &config::Redis, channel: &str) -> Result<Opened, String> {
    if settings.tls.is_some() {
        // Another user of rustls may have chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let tls = certificates(settings.tls.as_ref())?;
    let opened = match &settings.servers {
        RedisServers::Standalone(node) => single(settings, &node.host, node.port, tls.as_ref()).await?,
        RedisServers::Sentinel { .. } => {
            let (host, port) = master(settings).await?;
            let mut opened = single(settings, &host, port, tls.as_ref()).await?;
            opened.link.check_role().await?;
            opened.master = Some((host, port));
            opened
        }
        RedisServers::Cluster(nodes) => cluster(settings, nodes, tls.as_ref()).await?,
    };
    subscribe(opened, channel).await
}

/// The master that most Sentinels name of those that answer within the deadline.
pub(super) async fn master(settings: &config::Redis) -> Result<(String, u16), String> {
    let RedisServers::Sentinel { sentinels, master } = &settings.servers else {
        return Err("there are no Sentinels".to_owned());
    };
    let tls = certificates(settings.tls.as_ref())?;
    let asked = sentinels.iter().map(|sentinel| ask_sentinel(settings, sentinel, master, tls.as_ref()));
    let answers = join_all(asked).await;
    let mut votes: HashMap<&(String, u16), usize> = HashMap::new();
    for named in answers.iter().flatten() {
        *votes.entry(named).or_default() += 1;
    }
    if let Some((named, _)) = votes.iter().max_by_key(|(_, votes)| **votes) {
        return Ok((*named).clone());
    }
    let reasons: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
    Err(format!("no Sentinel names a master {master:?}: {}", reasons.join("; ")))
}

impl Link {
    /// Sends the commands in one round trip, as far as they go to one server. An error is one of the connection; what Redis
    /// answers is the command's own.
    pub(super) async fn run(&self, commands: impl Iterator<Item = &Cmd>) -> Result<Vec<Reply>, RedisError> {
        match self {
            Self::Single(connection) => {
                let mut pipeline = Pipeline::new();
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                let count = pipeline.len();
                let answer = pipeline.ignore_errors().query_async(&mut connection.clone()).await?;
                split(answer, count)
            }
            Self::Cluster(connection) => {
                let each = commands.map(|command| {
                    let mut connection = connection.clone();
                    async move { own_error(command.query_async(&mut connection).await) }
                });
                join_all(each).await.into_iter().collect()
            }
        }
    }

    /// A server that was a master and is none answers reads, and old ones.
    async fn check_role(&self) -> Result<(), String> {
        let role = self.run([redis::cmd("ROLE")].iter()).await.map_err(|error| describe(&error))?;
        match role.first() {
            Some(Ok(Value::Array(role))) => match role.first() {
                Some(Value::BulkString(role)) if role == b"master" => Ok(()),
                _ => Err("whom the Sentinels name is no master yet".to_owned()),
            },
            // A user may be without the right to ask.
            _ => Ok(()),
        }
    }
}

/// What failed, without addresses that hold credentials.
pub(super) fn describe(error: &RedisError) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.code().unwrap_or(error.category())),
        None => error.to_string(),
    }
}

async fn single(
    settings: &config::Redis,
    host: &str,
    port: u16,
    tls: Option<&TlsCertificates>,
) -> Result<Opened, String> {
    let user = user(settings.username.as_deref(), settings.password.as_ref()).set_db(settings.db.into());
    let client = client(host, port, user, tls).map_err(|error| describe(&error))?;
    let link = connect(&client, settings.timeout)
        .await
        .map_err(|error| format!("{host}:{port}: {}", describe(&error)))?;
    let notices = client.get_async_pubsub().await.map_err(|error| describe(&error))?;
    Ok(Opened { link: Link::Single(link), notices, master: None })
}

async fn cluster(
    settings: &config::Redis,
    nodes: &[RedisNode],
    tls: Option<&TlsCertificates>,
) -> Result<Opened, String> {
    let user = || user(settings.username.as_deref(), settings.password.as_ref());
    let infos: Result<Vec<_>, _> =
        nodes.iter().map(|node| info(&node.host, node.port, user(), tls.is_some())).collect();
    let mut builder = ClusterClientBuilder::new(infos.map_err(|error| describe(&error))?)
        .connection_timeout(settings.timeout)
        .response_timeout(settings.timeout)
        .retries(2);
    if let Some(tls) = tls {
        builder = builder.certs(tls.clone());
    }
    let client = builder.build().map_err(|error| describe(&error))?;
    let link = client.get_async_connection().await.map_err(|error| describe(&error))?;
    let notices = first_listener(settings, nodes, tls).await?;
    Ok(Opened { link: Link::Cluster(link), notices, master: None })
}

/// Every node of a cluster passes on what is published at any.
async fn first_listener(
    settings: &config::Redis,
    nodes: &[RedisNode],
    tls: Option<&TlsCertificates>,
) -> Result<PubSub, String> {
    let mut reason = "there are no nodes".to_owned();
    for node in nodes {
        let user = user(settings.username.as_deref(), settings.password.as_ref());
        let client = client(&node.host, node.port, user, tls).map_err(|error| describe(&error))?;
        match timeout(settings.timeout, client.get_async_pubsub()).await {
            Ok(Ok(notices)) => return Ok(notices),
            Ok(Err(error)) => reason = describe(&error),
            Err(_) => reason = format!("{}:{} does not answer", node.host, node.port),
        }
    }
    Err(reason)
}

async fn subscribe(mut opened: Opened, channel: &str) -> Result<Opened, String> {
    opened.notices.subscribe(channel).await.map_err(|error| describe(&error))?;
    Ok(opened)
}

async fn ask_sentinel(
    settings: &config::Redis,
    sentinel: &RedisNode,
    master: &str,
    tls: Option<&TlsCertificates>,
) -> Result<(String, u16), String> {
    let name = format!("{}:{}", sentinel.host, sentinel.port);
    let named = async {
        let user = user(sentinel.username.as_deref(), sentinel.password.as_ref());
        let client = client(&sentinel.host, sentinel.port, user, tls)?;
        let mut connection = connect(&client, settings.timeout).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(master);
        command.query_async::<Option<(String, u16)>>(&mut connection).await
    };
    match timeout(settings.timeout, named).await {
        Ok(Ok(Some(named))) => Ok(named),
        Ok(Ok(None)) => Err(format!("{name} does not know it")),
        Ok(Err(error)) => Err(format!("{name}: {}", describe(&error))),
        Err(_) => Err(format!("{name} does not answer")),
    }
}

async fn connect(client: &Client, limit: Duration) -> Result<MultiplexedConnection, RedisError> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(limit));
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn client(
    host: &str,
    port: u16,
    user: RedisConnectionInfo,
    tls: Option<&TlsCertificates>,
) -> Result<Client, RedisError> {
    let info = info(host, port, user, tls.is_some())?;
    match tls {
        Some(tls) => Client::build_with_tls(info, tls.clone()),
        None => Client::open(info),
    }
}

fn info(host: &str, port: u16, user: RedisConnectionInfo, tls: bool) -> Result<ConnectionInfo, RedisError> {
    let host = host.to_owned();
    let address = if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    Ok(address.into_connection_info()?.set_redis_settings(user))
}

fn user(username: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    let mut user =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
    if let Some(username) = username {
        user = user.set_username(username);
    }
    if let Some(password) = password {
        user = user.set_password(password.expose());
    }
    user
}

/// Read at every connection, so that a new file counts without a restart.
fn certificates(tls: Option<&RedisTls>) -> Result<Option<TlsCertificates>, String> {
    let Some(RedisTls { ca }) = tls else { return Ok(None) };
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|error| format!("failed to read {}: {error}", path.display()))
    };
    Ok(Some(TlsCertificates { client_tls: None, root_cert: ca.as_ref().map(read).transpose()? }))
}

fn split(answer: Value, count: usize) -> Result<Vec<Reply>, RedisError> {
    let Value::Array(values) = answer else {
        return Err((redis::ErrorKind::UnexpectedReturnType, "answer to a pipeline is no array").into());
    };
    if values.len() != count {
        return Err(
            (redis::ErrorKind::UnexpectedReturnType, "answer to a pipeline has another length").into()
        );
    }
    let reply = |value| {
        let Value::ServerError(error) = value else { return Ok(value) };
        Err(Answer { code: error.code().to_owned(), text: error.details().unwrap_or_default().to_owned() })
    };
    Ok(values.into_iter().map(reply).collect())
}

/// Tells what Redis answered from what befell the connection.
fn own_error(result: Result<Value, RedisError>) -> Result<Reply, RedisError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match error.code() {
            Some(code) => {
                Ok(Err(Answer { code: code.to_owned(), text: error.detail().unwrap_or_default().to_owned() }))
            }
            None => Err(error),
        },
    }
}
