//! Where settings come from: flags, the environment, `.env`, the TOML file; the strongest layer that says something
//! counts, and an empty value says nothing.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf};

use super::{
    ConfigError, env_file,
    settings::{self, SETTINGS, Setting},
};

/// Raw values by variable name.
pub type Values = BTreeMap<String, String>;

/// What each layer says, unchecked; secrets included, so that it is never printed.
#[derive(Clone, Default)]
pub struct Layers {
    /// Flags, by the name of their variable.
    pub flags: Values,
    /// The process environment; other variables than ours may be in it.
    pub environment: Values,
    /// Text of `.env` in the working directory; empty if there is none.
    pub env_file: String,
    /// The TOML file, if one was named.
    pub file: Option<File>,
}

/// A TOML file.
#[derive(Clone)]
pub struct File {
    /// Its path, for messages.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

impl Layers {
    /// The TOML file that the other layers name.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        let stack = Stack::new(self, &mut Vec::new());
        stack.lookup(&settings::CONFIG).map(|(path, _)| path.into())
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("file", &self.file).finish_non_exhaustive()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A layer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The command line.
    Flag,
    /// The process environment.
    Environment,
    /// `.env`.
    EnvFile,
    /// The TOML file.
    File,
    /// What holds when nothing is said.
    Default,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "command line",
            Self::Environment => "environment",
            Self::EnvFile => ".env",
            Self::File => "configuration file",
            Self::Default => "default",
        })
    }
}

/// All layers as values by variable name, strongest first.
pub(super) struct Stack<'a>([(Layer, Cow<'a, Values>); 4]);

impl<'a> Stack<'a> {
    /// Reads the two files; what is wrong with the TOML one goes to `errors`.
    pub(super) fn new(layers: &'a Layers, errors: &mut Vec<ConfigError>) -> Self {
        let file = layers.file.as_ref().map(|file| read_toml(file, errors)).unwrap_or_default();
        Self([
            (Layer::Flag, Cow::Borrowed(&layers.flags)),
            (Layer::Environment, Cow::Borrowed(&layers.environment)),
            (Layer::EnvFile, Cow::Owned(env_file::parse(&layers.env_file))),
            (Layer::File, Cow::Owned(file)),
        ])
    }

    /// The value that counts, and who said it.
    pub(super) fn lookup(&self, setting: &Setting) -> Option<(&str, Layer)> {
        self.0.iter().find_map(|(layer, values)| {
            let value = values.get(setting.variable)?.trim();
            (!value.is_empty()).then_some((value, *layer))
        })
    }

    /// One line for each variable that looks like ours and is not.
    pub(super) fn unknown_variables(&self) -> Vec<String> {
        let ours = |name: &&String| name.starts_with("PROXY_") && by_variable(name).is_none();
        let warning = |layer, name: &str| {
            let nearest = settings::nearest(name, SETTINGS.iter().map(|s| s.variable)).unwrap_or_default();
            format!("unknown variable {name} ({layer}) is ignored; did you mean {nearest}?")
        };
        let names = self.0.iter().flat_map(|(layer, values)| values.keys().map(move |name| (layer, name)));
        names.filter(|(_, name)| ours(name)).map(|(layer, name)| warning(layer, name)).collect()
    }
}

fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable == name)
}

fn read_toml(file: &File, errors: &mut Vec<ConfigError>) -> Values {
    let table: toml::Table = match file.text.parse() {
        Ok(table) => table,
        Err(error) => {
            errors
                .push(ConfigError::File { path: file.path.clone(), reason: toml_reason(&error, &file.text) });
            return Values::new();
        }
    };
    let entries = table.iter().map(|(key, value)| entry(file, key, value));
    entries.filter_map(|entry| entry.map_err(|error| errors.push(error)).ok()).collect()
}

/// Line and cause, without the line's text: it may hold a secret.
fn toml_reason(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

fn entry(file: &File, key: &str, value: &toml::Value) -> Result<(String, String), ConfigError> {
    let known = |setting: &&Setting| !setting.key.is_empty() && setting.key == key;
    let Some(setting) = SETTINGS.iter().find(known) else {
        let nearest = settings::nearest(key, SETTINGS.iter().map(|s| s.key)).unwrap_or_default();
        return Err(ConfigError::UnknownKey { path: file.path.clone(), key: key.to_owned(), nearest });
    };
    match plain(value) {
        Some(value) => Ok((setting.variable.to_owned(), value)),
        None => Err(ConfigError::KeyType { path: file.path.clone(), key: key.to_owned() }),
    }
}

/// A TOML value as the variable would hold it.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(true) => Some("on".to_owned()),
        toml::Value::Boolean(false) => Some("off".to_owned()),
        toml::Value::Array(items) => {
            items.iter().map(plain).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
