//! The sources, one after the other.

use super::container::Container;
use super::instance;
use super::profile::{self, Found};
use super::web_identity::{Role, TokenService};
use super::words::{Credentials, CredentialsError};
use crate::config::AwsVariables;
use crate::integrations::client::HttpClient;

/// Where credentials may come from.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) variables: AwsVariables,
    /// Of the shared files; the only source if it is named.
    pub(crate) profile: Option<String>,
    /// Whose token service is asked.
    pub(crate) region: String,
    pub(crate) client: HttpClient,
}

impl Chain {
    /// Asks the sources.
    ///
    /// # Errors
    /// None is set up, or the first that is has failed.
    pub(super) async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let variables = &self.variables;
        if self.profile.is_none() {
            let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
            let keys = names.map(|name| variables.get(name));
            if let Some(found) = Credentials::of_keys("the variables AWS_*", keys)? {
                return Ok(found);
            }
        }
        match profile::find(variables, self.profile.as_deref())? {
            Some(Found::Keys(found)) => return Ok(found),
            Some(Found::Role(role)) => return role.assume(self.token_service()).await,
            None => {}
        }
        if let Some(role) = Role::of_variables(variables)? {
            return role.assume(self.token_service()).await;
        }
        if let Some(container) = Container::of(variables)? {
            return container.ask(&self.client).await;
        }
        instance::ask(variables, &self.client).await
    }

    fn token_service(&self) -> TokenService<'_> {
        TokenService { variables: &self.variables, region: &self.region, client: &self.client }
    }
}
