//! What an operator can set: flags before environment before file before default.
//!
//! Every limit is finite and has a range; every fault is found in one pass and says its line and its fix. [`table`] has a row for
//! each setting.

mod access;
mod fault;
mod file;
mod groups;
mod kinds;
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
mod sources;
mod table;
mod tls;
mod variables;
mod written;

use self::reader::Reader;

pub(crate) use self::fault::Fault;
pub(crate) use self::file::configuration;
pub(crate) use self::redis_url::RedisTopology;
pub(crate) use self::reference::reference;
pub(crate) use self::schema::schema;
pub(crate) use self::secret::Secret;
pub(crate) use self::settings::{
    AccessKey, Auth, Config, Drain, Limits, Management, ManagementAuth, OnOutage, Origins, PerAddress,
    RedisSettings, RedisTls,
};
pub(crate) use self::sources::Sources;

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// Every fault there is.
    pub(crate) fn load(sources: &Sources) -> Result<Self, Vec<Fault>> {
        let none = ("built-in configuration".to_owned(), String::new());
        let (file, text) = sources.file.as_ref().unwrap_or(&none);
        let (mut overrides, not_understood) = otel::translate(&sources.otel);
        overrides.extend(sources.overrides.clone());
        let mut reader = Reader::open(file, text, &overrides);
        let mut config = sections::read(&mut reader);
        pairs::check(&mut reader, &config);
        let (mut faults, warnings) = reader.end();
        config.warnings = warnings;
        let told = |name| format!("the variable {name} is not understood");
        config.warnings.extend(not_understood.into_iter().map(told));
        faults.extend(sources.faults.iter().cloned());
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests;
