//! The way back: what functions need to reach the management API over TLS, with code that was
//! written for Amazon.
//!
//! Handlers build the address from `domainName` and `stage`, and speak TLS to it. So a node that
//! runs functions has a port with TLS, a certificate of a CA that is made at each start, and
//! variables by which functions trust that CA, sign with a key that opens connections alone, and
//! find local addresses in place of Amazon's hosts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use self::authority::Authority;
use super::tls::{self, Identity, TlsError};
use crate::config::CallbackSettings;

pub(crate) use self::environment::Environment;
pub(crate) use self::hosts::Hosts;
pub(crate) use self::wishes::{HostMap, Wishes};

mod authority;
mod environment;
mod hosts;
mod key;
mod wishes;

/// Why there is no way back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallbackError {
    #[error("the certificate of the callback port: {0}")]
    Tls(#[from] TlsError),
    #[error("the private CA of the callback port: {0}")]
    Authority(#[from] rcgen::Error),
    #[error("the certificates for functions cannot be written: {0}")]
    Folder(#[from] io::Error),
    #[error(
        "{host} is mapped to {one} and to {other}; all functions of a node find it at one address"
    )]
    Hosts { host: String, one: String, other: String },
}

/// See the [module documentation](self).
pub(crate) struct Callback {
    /// Ends TLS for the management API.
    pub(crate) acceptor: TlsAcceptor,
    /// Ends TLS for the hosts that are mapped, if there are any, and says where they are.
    pub(crate) hosts: Option<(TlsAcceptor, HostMap)>,
    /// What functions are started with.
    pub(crate) environment: Arc<Environment>,
}

impl Callback {
    /// Makes what is needed, given where the ports for the management API and for mapped hosts are.
    ///
    /// # Errors
    /// What is wrong with the settings, or cannot be made.
    pub(crate) fn make(
        settings: &CallbackSettings,
        stage: &str,
        management: SocketAddr,
        mapped: Option<SocketAddr>,
        functions: &[Wishes],
    ) -> Result<Self, CallbackError> {
        let authority = Authority::make()?;
        let hosts = merge(functions)?;
        let domain =
            settings.domain_name.clone().unwrap_or_else(|| environment::reached_at(management));
        let (identity, extra) = match &settings.certificate {
            Some(files) => {
                let identity = Identity::read(files)?;
                let chain = identity.chain.clone();
                (identity, chain)
            }
            None => {
                let local = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
                let own = functions
                    .iter()
                    .filter_map(|wishes| wishes.domain.as_deref())
                    .chain([&*domain]);
                (authority.leaf(own.map(environment::host_of).chain(local))?, Vec::new())
            }
        };
        let environment = Environment::write(
            environment::Facts {
                domain,
                stage: stage.to_owned(),
                region: settings.region.clone(),
                key: key::draw(),
                mapped: mapped.map(environment::reached_at),
            },
            [authority.certificate.clone()].into_iter().chain(extra),
        )?;
        let hosts = if hosts.is_empty() {
            None
        } else {
            let identity = authority.leaf(hosts.keys().cloned())?;
            Some((tls::named(identity, hosts.keys().map(String::as_str))?, hosts))
        };
        Ok(Self { acceptor: tls::http(identity)?, hosts, environment: Arc::new(environment) })
    }
}

/// Puts the hosts of all functions together: the port for them knows a client by the name alone
/// that it asks for.
fn merge(functions: &[Wishes]) -> Result<HostMap, CallbackError> {
    let mut all = HostMap::new();
    for (host, address) in functions.iter().flat_map(|wishes| &wishes.hosts) {
        let host = host.to_ascii_lowercase();
        match all.get(&host) {
            Some(one) if one != address => {
                return Err(CallbackError::Hosts {
                    host,
                    one: one.clone(),
                    other: address.clone(),
                });
            }
            _ => drop(all.insert(host, address.clone())),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(host: &str, address: &str) -> Wishes {
        Wishes { domain: None, hosts: [(host.to_owned(), address.to_owned())].into() }
    }

    #[test]
    fn a_host_is_at_one_address_for_all_functions() {
        let same = merge(&[wishes("A.example", "127.0.0.1:1"), wishes("a.example", "127.0.0.1:1")]);
        assert_eq!(same.expect("one address"), wishes("a.example", "127.0.0.1:1").hosts);
        let other =
            merge(&[wishes("a.example", "127.0.0.1:1"), wishes("a.example", "127.0.0.1:2")]);
        assert!(
            other
                .expect_err("two addresses")
                .to_string()
                .starts_with("a.example is mapped to 127.0.0.1:1 and")
        );
    }
}
