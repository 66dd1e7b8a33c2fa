//! A hash of small texts in the counters' Redis, for what all replicas share beside the counters. It is read whole, and only
//! when it has changed; a change is made only by who knows the hash as it stands, so that none is lost.

use std::sync::Arc;
use std::time::Duration;

use super::Unavailable;
use super::redis::Shared;

const SCRIPT: &str = include_str!("shelf.lua");
/// The field that holds the version.
const VERSION: &str = ":version";
/// How long Redis may take. Nobody's request waits for this.
const PATIENCE: Duration = Duration::from_secs(2);

/// One hash, and the connection to it.
#[derive(Clone, Debug)]
pub struct Shelf {
    shared: Arc<Shared>,
    name: &'static str,
}

/// The fields of a hash, and the version that they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Names the state of the hash; empty for one that is not there.
    pub version: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

impl Shelf {
    pub(super) fn new(shared: Arc<Shared>, name: &'static str) -> Self {
        Self { shared, name }
    }

    /// The whole hash; `None` if it is still at this version.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn read(&self, known: &str) -> Result<Option<Contents>, Unavailable> {
        let answer = self.run(vec!["read".into(), known.into()]).await?;
        let [said, rest @ ..] = answer.as_slice() else { return Err(Unavailable) };
        if said == "same" {
            return Ok(None);
        }
        let [version, flat @ ..] = rest else { return Err(Unavailable) };
        let fields = flat.chunks_exact(2).filter(|pair| pair[0] != VERSION).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        Ok(Some(Contents { version: version.clone(), fields }))
    }

    /// Sets these fields and takes those away, if the hash is at the version that is known. The version from now on, or `None`
    /// if somebody else was faster.
    ///
    /// # Errors
    /// When Redis does not answer; then the change may have been made or not.
    pub async fn put(&self, known: &str, set: &[(String, String)], gone: &[String]) -> Result<Option<String>, Unavailable> {
        let next = self.shared.new_id();
        let mut args = vec!["put".to_owned(), known.to_owned(), next.clone(), set.len().to_string()];
        args.extend(set.iter().flat_map(|(name, value)| [name.clone(), value.clone()]));
        args.extend_from_slice(gone);
        let answer = self.run(args).await?;
        Ok((answer.first().is_some_and(|said| said == "done")).then_some(next))
    }

    async fn run(&self, args: Vec<String>) -> Result<Vec<String>, Unavailable> {
        self.shared.link.run(SCRIPT, self.name, args, PATIENCE).await.map_err(|failure| {
            tracing::debug!(%failure, shelf = self.name, "Redis did not answer.");
            Unavailable
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::server::Server;
    use super::super::{Redis, redis};
    use super::*;

    async fn shelf(url: String) -> (Redis, Shelf) {
        let redis = Redis::connect(&redis::Settings::new(url)).await.unwrap();
        let shelf = redis.shelf("things");
        (redis, shelf)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[tokio::test]
    async fn who_is_behind_changes_nothing() {
        for cluster in [false, true] {
            let server = if cluster { Server::cluster() } else { Server::forgetful() };
            let url = || if cluster { server.cluster_url() } else { server.url() };
            let ((_a, one), (_b, two)) = (shelf(url()).await, shelf(url()).await);
            assert_eq!(one.read("").await.unwrap(), None, "an empty hash has the empty version");
            let first = one.put("", &[pair("a", "1"), pair("b", "2")], &[]).await.unwrap().unwrap();
            assert_eq!(two.put("", &[pair("a", "9")], &[]).await.unwrap(), None);
            let seen = two.read("").await.unwrap().unwrap();
            assert_eq!((seen.version.as_str(), seen.fields.len()), (first.as_str(), 2));
            let second = two.put(&first, &[pair("c", "3")], &["a".into()]).await.unwrap().unwrap();
            assert_eq!(one.put(&first, &[], &["b".into()]).await.unwrap(), None);
            let mut seen = one.read(&first).await.unwrap().unwrap();
            seen.fields.sort();
            assert_eq!(seen, Contents { version: second.clone(), fields: vec![pair("b", "2"), pair("c", "3")] });
            assert_eq!(one.read(&second).await.unwrap(), None, "what has not changed is not sent");
        }
    }

    #[tokio::test]
    async fn a_redis_that_is_away_is_said_to_be() {
        let mut server = Server::forgetful();
        let (_redis, shelf) = shelf(server.url()).await;
        server.stop();
        assert_eq!(shelf.read("").await, Err(Unavailable));
        assert_eq!(shelf.put("", &[], &[]).await, Err(Unavailable));
    }
}
