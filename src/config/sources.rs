//! Where settings come from.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::aws::AwsVariables;
use super::fault::Fault;
use super::file;
use super::variables::PREFIX;

/// See the [module documentation](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The configuration file.
    pub(crate) path: Option<PathBuf>,
    /// Its name and text.
    pub(crate) file: Option<(String, String)>,
    /// Variables of the environment that start with `GATECAST_`, flags laid over them.
    pub(crate) overrides: BTreeMap<String, String>,
    /// Variables of the environment that start with `OTEL_`; those above are stronger.
    pub(crate) otel: BTreeMap<String, String>,
    /// Where programs are looked for that functions run with: `PATH`.
    pub(crate) search_path: Option<String>,
    /// Variables that the SDKs of AWS read.
    pub(crate) aws: AwsVariables,
    /// Faults that were found before: variables that cannot be read.
    pub(crate) faults: Vec<Fault>,
}

impl Sources {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read_file(&mut self) -> Result<(), String> {
        if let Some(path) = &self.path {
            self.file = Some((path.display().to_string(), file::configuration(path)?));
        }
        Ok(())
    }

    /// Takes a variable of the environment, if it may be a setting.
    pub(crate) fn set_variable(&mut self, name: &OsStr, value: OsString) {
        let Some(name) = name.to_str() else { return };
        if name == "PATH" {
            self.search_path = value.into_string().ok();
            return;
        }
        if AwsVariables::has(name) {
            if let Ok(value) = value.into_string() {
                self.aws.set(name, &value);
            }
            return;
        }
        let is_otel = name.starts_with("OTEL_");
        if !is_otel && (!name.starts_with(PREFIX) || name == "GATECAST_CONFIG") {
            return;
        }
        match value.into_string() {
            Ok(value) if is_otel => drop(self.otel.insert(name.to_owned(), value)),
            Ok(value) => drop(self.overrides.insert(name.to_owned(), value)),
            Err(_) => self.faults.push(Fault {
                place: name.to_owned(),
                key: String::new(),
                message: "not UTF-8; write it in UTF-8, or unset it".to_owned(),
            }),
        }
    }

    /// Sets a flag: as the variable of the same name, but stronger.
    pub(crate) fn set_flag(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.overrides.insert(format!("{PREFIX}{}", key.to_uppercase()), value);
        }
    }
}
