//! Credentials of AWS: where they come from, and how they are kept.
//!
//! The order is that of the SDKs: variables, a profile of the shared files, a web identity, a
//! container, an instance. The first that is set up counts; if it fails, none after it is asked, so
//! that nobody is taken for somebody else. Whatever is asked is bounded in bytes and time. No error
//! repeats what a source has answered, but for the code of its error.

mod ask;
mod chain;
mod container;
mod document;
mod instance;
mod keeper;
mod profile;
mod web_identity;
mod words;

pub(crate) use self::chain::Chain;
pub(crate) use self::keeper::Keeper;

#[cfg(test)]
mod tests;
