//! A server's settings from a file, the environment and the command line.
//!
//! Each setting has one name, such as `limits.max_connections`, and is taken from the last of these
//! that gives it: its default, the TOML file, the environment (`NARROWS_SERVE_LIMITS_MAX_CONNECTIONS`),
//! the command line. [`Settings::to_toml`] shows all of them and where each came from.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Batching, Limits, ServerOptions};
use crate::{
    Error, StreamLimits, Token,
    tls::{Identity, ServerTls},
};

/// What the names of environment variables begin with.
const PREFIX: &str = "NARROWS_SERVE_";

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said otherwise.
    Default,
    /// The file of this name.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(name) => f.write_str(name),
            Source::Flag => f.write_str("command line"),
        }
    }
}

/// Everything that can be set, as it stands in the file. Empty text is "none".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct Form {
    listen: String,
    http: String,
    workers: usize,
    tails: Vec<String>,
    profiles: Vec<String>,
    limits: LimitsForm,
    batching: BatchingForm,
    streams: StreamsForm,
    auth: AuthForm,
    tls: TlsForm,
    log: LogForm,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsForm {
    max_message_bytes: u32,
    max_connections: usize,
    max_in_flight_per_connection: usize,
    max_in_flight: usize,
    max_memory_bytes: u64,
    patience_ms: u64,
    idle_timeout_ms: u64,
    message_timeout_ms: u64,
    drain_timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchingForm {
    max_requests: usize,
    budget_us: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamsForm {
    max_streams: usize,
    max_bytes: u64,
    idle_timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthForm {
    tokens_file: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsForm {
    certificate: String,
    key: String,
    client_ca: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogForm {
    level: String,
    format: String,
}

impl Default for Form {
    fn default() -> Form {
        let (limits, batching, streams) = (Limits::default(), Batching::default(), StreamLimits::default());
        let ms = |duration: Duration| duration.as_millis() as u64;
        Form {
            listen: "127.0.0.1:0".into(),
            http: String::new(),
            workers: 0,
            tails: Vec::new(),
            profiles: Vec::new(),
            limits: LimitsForm {
                max_message_bytes: limits.max_message_bytes,
                max_connections: limits.max_connections,
                max_in_flight_per_connection: limits.max_in_flight_per_connection,
                max_in_flight: limits.max_in_flight,
                max_memory_bytes: limits.max_memory_bytes,
                patience_ms: ms(limits.patience),
                idle_timeout_ms: ms(limits.idle_timeout),
                message_timeout_ms: ms(limits.message_timeout),
                drain_timeout_ms: ms(limits.drain_timeout),
            },
            batching: BatchingForm {
                max_requests: batching.max_requests,
                budget_us: batching.budget.as_micros() as u64,
            },
            streams: StreamsForm {
                max_streams: streams.max_streams,
                max_bytes: streams.max_bytes,
                idle_timeout_ms: ms(streams.idle_timeout),
            },
            auth: AuthForm { tokens_file: String::new() },
            tls: TlsForm { certificate: String::new(), key: String::new(), client_ca: String::new() },
            log: LogForm { level: "info".into(), format: "text".into() },
        }
    }
}

/// A server's settings, and where each came from.
#[derive(Debug, Clone)]
pub struct Settings {
    form: Form,
    /// By name.
    values: BTreeMap<String, (Value, Source)>,
}

impl Settings {
    /// Takes settings together: of `file`, if there is one; of the `environment`'s variables that
    /// begin with `NARROWS_SERVE_`; and of the `flags`, by name. A list is written in TOML, or
    /// without brackets and quotes, with commas between.
    ///
    /// # Errors
    /// A file that cannot be read, a name that is not a setting's, or a value of another type.
    #[expect(clippy::missing_panics_doc, reason = "the defaults are a table")]
    pub fn gather<'a>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<Settings, Error> {
        let defaults = Table::try_from(Form::default()).expect("the defaults are a table");
        let mut values = BTreeMap::new();
        flatten("", &defaults, &mut |name, value| {
            values.insert(name, (value.clone(), Source::Default));
        });
        let mut settings = Settings { form: Form::default(), values };
        if let Some(path) = file {
            settings.add_file(path)?;
        }
        let names: BTreeMap<_, _> =
            settings.values.keys().map(|name| (variable(name), name.clone())).collect();
        for (key, text) in environment {
            if let Some(name) = names.get(&key) {
                settings.add_text(name, &text, Source::Environment(key))?;
            } else if key.starts_with(PREFIX) {
                return Err(unknown(&key, &names.keys().cloned().collect::<Vec<_>>()));
            }
        }
        for (name, text) in flags {
            settings.add_text(name, &text, Source::Flag)?;
        }
        settings.form = settings.table().try_into().map_err(|error: toml::de::Error| Error::Setting {
            what: "the settings".into(),
            cause: error.message().to_owned(),
        })?;
        Ok(settings)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let wrong = |cause: String| Error::Setting { what: path.display().to_string(), cause };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        let mut outcome = Ok(());
        flatten("", &table, &mut |name, value| {
            if outcome.is_ok() {
                outcome = self.add(&name, value.clone(), Source::File(path.into()));
            }
        });
        outcome
    }

    fn add_text(&mut self, name: &str, text: &str, source: Source) -> Result<(), Error> {
        let value = match self.values.get(name) {
            Some((Value::Integer(_), _)) => text.trim().parse().map(Value::Integer).map_err(|_| ()),
            Some((Value::Array(_), _)) if text.starts_with('[') => {
                let list = format!("list = {text}").parse::<Table>().map_err(|error| Error::Setting {
                    what: format!("{name} (from {source})"),
                    cause: error.message().to_owned(),
                })?;
                Ok(list["list"].clone())
            }
            Some((Value::Array(_), _)) => {
                let parts = text.split(',').filter(|part| !part.is_empty());
                Ok(Value::Array(parts.map(|part| Value::String(part.into())).collect()))
            }
            _ => Ok(Value::String(text.into())),
        };
        let value = value.map_err(|()| Error::Setting {
            what: format!("{name} (from {source})"),
            cause: format!("{text:?} is not a whole number"),
        })?;
        self.add(name, value, source)
    }

    fn add(&mut self, name: &str, value: Value, source: Source) -> Result<(), Error> {
        let Some(known) = self.values.get_mut(name) else {
            let names: Vec<_> = self.values.keys().cloned().collect();
            return Err(unknown(&format!("{name} (from {source})"), &names));
        };
        if !known.0.same_type(&value) {
            let cause = format!("it is {}, it must be {}", value.type_str(), known.0.type_str());
            return Err(Error::Setting { what: format!("{name} (from {source})"), cause });
        }
        if matches!(value, Value::Integer(number) if number < 0) {
            let what = format!("{name} (from {source})");
            return Err(Error::Setting { what, cause: "it is below zero".into() });
        }
        *known = (value, source);
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        for (name, (value, _)) in &self.values {
            match name.split_once('.') {
                None => {
                    table.insert(name.clone(), value.clone());
                }
                Some((section, key)) => {
                    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                    section.as_table_mut().expect("a section").insert(key.into(), value.clone());
                }
            }
        }
        table
    }

    /// All settings as a file that could be read again, with the origin of each beside it.
    #[expect(clippy::missing_panics_doc, reason = "names were chosen for their dots")]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let (sections, plain): (Vec<_>, Vec<_>) =
            self.values.iter().partition(|(name, _)| name.contains('.'));
        let line = |text: &mut String, key: &str, (value, source): &(Value, Source)| {
            let setting = format!("{key} = {value}");
            let _ = writeln!(text, "{setting:<40} # {source}");
        };
        for (name, value) in plain {
            line(&mut text, name, value);
        }
        let mut last = "";
        for (name, value) in sections {
            let (section, key) = name.split_once('.').expect("it was chosen for its dot");
            if section != last {
                let _ = writeln!(text, "\n[{section}]");
                last = section;
            }
            line(&mut text, key, value);
        }
        text
    }

    /// Where the setting of this name came from.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.values.get(name).map(|(_, source)| source)
    }

    /// Where the server listens.
    ///
    /// # Errors
    /// The text is not a host and a port.
    pub fn listen(&self) -> Result<SocketAddr, Error> {
        address("listen", &self.form.listen)
    }

    /// Files of the tails to serve.
    pub fn tails(&self) -> &[String] {
        &self.form.tails
    }

    /// What the tails may keep of streams.
    pub fn streams(&self) -> StreamLimits {
        let StreamsForm { max_streams, max_bytes, idle_timeout_ms } = self.form.streams;
        StreamLimits { max_streams, max_bytes, idle_timeout: Duration::from_millis(idle_timeout_ms) }
    }

    /// Files of the profiles that frames may name.
    pub fn profiles(&self) -> &[String] {
        &self.form.profiles
    }

    /// The lowest level of log events shown.
    pub fn log_level(&self) -> &str {
        &self.form.log.level
    }

    /// Whether log events are JSON.
    ///
    /// # Errors
    /// The format is neither `text` nor `json`.
    pub fn logs_json(&self) -> Result<bool, Error> {
        match self.form.log.format.as_str() {
            "text" => Ok(false),
            "json" => Ok(true),
            other => Err(Error::Setting {
                what: "log.format".into(),
                cause: format!("it is {other:?}, it must be \"text\" or \"json\""),
            }),
        }
    }

    /// What the server needs; reads the files of tokens, keys and certificates.
    ///
    /// # Errors
    /// A file that cannot be read or used, or a setting outside its range.
    pub fn server_options(&self) -> Result<ServerOptions, Error> {
        let Form { http, workers, batching, .. } = &self.form;
        let http = (!http.is_empty()).then(|| address("http", http)).transpose()?;
        #[cfg(not(feature = "http"))]
        if http.is_some() {
            let cause = "this program was built without HTTP".into();
            return Err(Error::Setting { what: "http".into(), cause });
        }
        let options = ServerOptions {
            limits: self.limits(),
            workers: (*workers > 0).then_some(*workers),
            batching: Batching {
                max_requests: batching.max_requests,
                budget: Duration::from_micros(batching.budget_us),
            },
            tokens: self.tokens()?,
            tls: self.tls()?,
            #[cfg(feature = "http")]
            http,
        };
        options.check()?;
        Ok(options)
    }

    fn limits(&self) -> Limits {
        let limits = &self.form.limits;
        Limits {
            max_message_bytes: limits.max_message_bytes,
            max_connections: limits.max_connections,
            max_in_flight_per_connection: limits.max_in_flight_per_connection,
            max_in_flight: limits.max_in_flight,
            max_memory_bytes: limits.max_memory_bytes,
            patience: Duration::from_millis(limits.patience_ms),
            idle_timeout: Duration::from_millis(limits.idle_timeout_ms),
            message_timeout: Duration::from_millis(limits.message_timeout_ms),
            drain_timeout: Duration::from_millis(limits.drain_timeout_ms),
        }
    }

    fn tokens(&self) -> Result<Vec<Token>, Error> {
        let path = &self.form.auth.tokens_file;
        if path.is_empty() {
            return Ok(Vec::new());
        }
        let wrong = |cause| Error::Setting { what: format!("auth.tokens_file {path}"), cause };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let tokens: Vec<_> = lines.map(Token::new).collect();
        // An empty list would let everybody in.
        if tokens.is_empty() { Err(wrong("it holds no token".into())) } else { Ok(tokens) }
    }

    fn tls(&self) -> Result<Option<ServerTls>, Error> {
        let TlsForm { certificate, key, client_ca } = &self.form.tls;
        if certificate.is_empty() && key.is_empty() && client_ca.is_empty() {
            return Ok(None);
        }
        let read = |what: &str, path: &str| {
            fs::read(path).map_err(|error| Error::Setting {
                what: format!("tls.{what} {path:?}"),
                cause: error.to_string(),
            })
        };
        let (chain_pem, key_pem) = (read("certificate", certificate)?, read("key", key)?);
        let client_ca_pem = (!client_ca.is_empty()).then(|| read("client_ca", client_ca)).transpose()?;
        let identity = Identity { chain_pem: &chain_pem, key_pem: &key_pem };
        ServerTls::new(identity, client_ca_pem.as_deref()).map(Some)
    }
}

/// Calls `each` for every value that is no table, with its name.
fn flatten(prefix: &str, table: &Table, each: &mut impl FnMut(String, &Value)) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(table) => flatten(&name, table, each),
            value => each(name, value),
        }
    }
}

/// The environment variable of the setting `name`.
fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "_").to_uppercase())
}

fn unknown(name: &str, known: &[String]) -> Error {
    let cause = format!("there is no such setting; there are {}", known.join(", "));
    Error::Setting { what: name.into(), cause }
}

fn address(what: &str, text: &str) -> Result<SocketAddr, Error> {
    let wrong = |cause: String| Error::Setting { what: format!("{what} = {text:?}"), cause };
    let mut addresses = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses.next().ok_or_else(|| wrong("it names no host".into()))
}
