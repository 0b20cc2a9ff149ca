//! What the environment and the names of regions say of AWS.

use std::collections::BTreeMap;

use super::secret::Secret;

/// Regions whose hosts have other names, by how they begin.
const ELSEWHERE: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
];

/// The variables of the environment that the SDKs of AWS read. Some are secrets.
#[derive(Clone, Debug, Default)]
pub(crate) struct AwsVariables(BTreeMap<String, Secret>);

impl AwsVariables {
    /// Returns whether a variable may be one.
    pub(super) fn has(name: &str) -> bool {
        name.starts_with("AWS_") || name == "HOME"
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), Secret::new(value));
    }

    /// Returns a variable that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose).filter(|value| !value.is_empty())
    }
}

/// Returns the host of a service of Amazon's in a region.
pub(crate) fn amazon(service: &str, region: &str) -> String {
    let elsewhere = ELSEWHERE.iter().find(|(start, _)| region.starts_with(start));
    let suffix = elsewhere.map_or("amazonaws.com", |(_, suffix)| suffix);
    format!("{service}.{region}.{suffix}")
}
