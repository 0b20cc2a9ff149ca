//! What an operator can set: flags before environment before file before default.
//!
//! Every limit is finite and has a range; every fault is found in one pass and says its line and
//! its fix. [`table`] has a row for each setting.

mod access;
mod aws;
mod callback;
mod fault;
mod file;
mod functions;
mod groups;
mod kinds;
mod lambdas;
mod otel;
mod pairs;
mod reader;
mod redis_url;
mod reference;
mod routes;
mod row;
mod schema;
mod secret;
mod sections;
mod settings;
mod snapshot;
mod sources;
mod table;
mod targets;
mod tls;
mod values;
mod variables;
mod written;

use self::reader::{Findings, Reader};
use self::row::Reload;
use self::values::{Change, Values};

pub(crate) use self::aws::{AwsVariables, amazon};
pub(crate) use self::fault::Fault;
pub(crate) use self::file::read as read_file;
pub(crate) use self::redis_url::RedisTopology;
pub(crate) use self::reference::reference;
pub(crate) use self::schema::schema;
pub(crate) use self::secret::Secret;
pub(crate) use self::settings::{
    AccessKey, AccessLogSettings, Auth, CallbackSettings, CertificateFiles, Config, Drain, Format,
    FunctionSettings, HttpSettings, LambdaAuth, LambdaSettings, Limits, Management, ManagementAuth,
    OnOutage, Origins, RedisSettings, RedisTls, Runtime, StreamSettings,
};
pub(crate) use self::snapshot::{Snapshot, Snapshots};
pub(crate) use self::sources::Sources;

/// Begins a fault of settings that are right by themselves.
const BESIDE: &str = "beside the settings that need a restart, as they are now: ";

/// What came of reading the configuration again.
#[derive(Debug)]
pub(crate) struct Reloaded {
    /// The new settings; those that need a restart are as they were.
    pub(crate) config: Config,
    /// Keys of the settings that have changed.
    pub(crate) applied: Vec<String>,
    /// Keys of those that a restart would change.
    pub(crate) needs_restart: Vec<String>,
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// Every fault there is.
    pub(crate) fn load(sources: &Sources) -> Result<Self, Vec<Fault>> {
        Self::read(sources, None).map(|(config, _)| config)
    }

    /// Reads and checks all settings again. The file has to be valid by itself, and beside the
    /// settings that stay as they are.
    ///
    /// # Errors
    /// Every fault there is.
    pub(crate) fn reload(&self, sources: &Sources) -> Result<Reloaded, Vec<Fault>> {
        let Self { warnings, .. } = Self::load(sources)?;
        let (config, changes) = Self::read(sources, Some(&self.values)).map_err(|mut faults| {
            faults.iter_mut().for_each(|fault| fault.message.insert_str(0, BESIDE));
            faults
        })?;
        let (late, now): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.reload == Reload::Restart);
        let keys = |changes: Vec<Change>| changes.into_iter().map(|change| change.key).collect();
        Ok(Reloaded {
            config: Self { warnings, ..config },
            applied: keys(now),
            needs_restart: keys(late),
        })
    }

    fn read(sources: &Sources, held: Option<&Values>) -> Result<(Self, Vec<Change>), Vec<Fault>> {
        let none = ("built-in configuration".to_owned(), String::new());
        let (file, text) = sources.file.as_ref().unwrap_or(&none);
        let (mut overrides, not_understood) = otel::translate(&sources.otel);
        overrides.extend(sources.overrides.clone());
        let mut reader = Reader::open(file, text, &overrides, held);
        let config = sections::read(&mut reader, &sources.aws);
        pairs::check(&mut reader, &config);
        let (search_path, aws) = (sources.search_path.clone(), sources.aws.clone());
        let Findings { mut faults, mut warnings, values, changes } = reader.end();
        let told = |name| format!("the variable {name} is not understood");
        warnings.extend(not_understood.into_iter().map(told));
        faults.extend(sources.faults.iter().cloned());
        if faults.is_empty() {
            Ok((Self { search_path, aws, values, warnings, ..config }, changes))
        } else {
            Err(faults)
        }
    }
}

#[cfg(test)]
mod tests;
