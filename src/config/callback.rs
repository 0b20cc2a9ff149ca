//! Reads how functions come back.

use super::kinds::domain::DomainName;
use super::reader::Reader;
use super::settings::{CallbackSettings, CertificateFiles};
use super::table::callback;
use super::tls;

/// Takes `[callback]`.
pub(super) fn read(reader: &mut Reader<'_>) -> CallbackSettings {
    let listen = reader.take(&callback::listen);
    let domain_name = reader.take(&callback::domain_name).map(|DomainName(name)| name);
    let files = tls::pair(reader, [&callback::cert_file, &callback::key_file]);
    let region = reader.take(&callback::region);
    let certificate = files.map(|[cert_file, key_file]| CertificateFiles { cert_file, key_file });
    CallbackSettings { listen, domain_name, certificate, region }
}
