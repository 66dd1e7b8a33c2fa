//! A key's life, and that it outlives what can happen to its place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::*;
use crate::counters::suite::server::{Folder, Server};
use crate::counters::{Redis, redis};

const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn wanted(consumer: &str) -> Wanted {
    Wanted { consumer: consumer.into(), ..Wanted::default() }
}

fn who(ring: &Keyring, key: &Secret, now: u64) -> Result<String, Stranger> {
    ring.find(&Sha256::digest(key.expose().as_bytes()).into(), Duration::from_secs(now)).map(|name| name.to_string())
}

fn open(folder: &Folder) -> Result<Arc<Keyring>, Error> {
    Keyring::open(folder.path(), None)
}

fn file(folder: &Folder) -> PathBuf {
    folder.path().join("keys.json")
}

#[tokio::test]
async fn a_key_is_made_found_and_revoked_and_only_its_hash_is_kept() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    assert!(!file(&folder).exists(), "nothing is written before there is a key");
    let Fresh { made, key } = ring.make(Wanted { name: Some("laptop".into()), ..wanted("alice") }, NOW).await.unwrap();
    assert_eq!(who(&ring, &key, NOW).as_deref(), Ok("alice"));
    assert_eq!(who(&ring, &Secret::new("tv-another"), NOW), Err(Stranger::Unknown));
    let text = fs::read_to_string(file(&folder)).unwrap();
    assert!(!text.contains(key.expose()) && text.contains(&made.sha256) && key.expose().starts_with("tv-") && key.expose().len() == 46, "{text}");
    assert_eq!(fs::metadata(file(&folder)).unwrap().permissions().mode() & 0o777, 0o600);

    assert_eq!(left_in(folder.path(), NOW), 1);
    let revoked = ring.revoke(&made.id, NOW + 5).await.unwrap();
    assert_eq!(left_in(folder.path(), NOW), 0);
    assert_eq!((revoked.revoked, who(&ring, &key, NOW + 5)), (Some(NOW + 5), Err(Stranger::Expired)));
    assert_eq!(ring.revoke(&made.id, NOW + 9).await.unwrap().revoked, Some(NOW + 5), "what has ended stays as it is");
    assert!(matches!(ring.revoke("key_none", NOW).await, Err(Error::Unknown(_))));
}

#[tokio::test]
async fn a_key_expires() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    let Fresh { made, key } = ring.make(Wanted { expires: Some(NOW + 10), ..wanted("alice") }, NOW).await.unwrap();
    assert_eq!(who(&ring, &key, NOW + 9).as_deref(), Ok("alice"));
    assert_eq!(who(&ring, &key, NOW + 10), Err(Stranger::Expired));
    assert!(matches!(ring.rotate(&made.id, HOUR, None, NOW + 10).await, Err(Error::Ended(_))));
}

#[tokio::test]
async fn the_old_key_lives_on_for_the_grace_and_never_longer_than_it_would_have() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    let first = ring.make(Wanted { name: Some("ci".into()), expires: Some(NOW + 86_400), ..wanted("alice") }, NOW).await.unwrap();
    let second = ring.rotate(&first.made.id, HOUR, None, NOW + 100).await.unwrap();
    assert_eq!((second.made.name.as_deref(), second.made.expires), (Some("ci"), Some(NOW + 100 + 86_400)), "it lives as long as the old one was made for");
    for (at, old) in [(NOW + 100, Ok("alice".to_owned())), (NOW + 3699, Ok("alice".to_owned())), (NOW + 3700, Err(Stranger::Expired))] {
        assert_eq!((who(&ring, &first.key, at), who(&ring, &second.key, at).as_deref()), (old, Ok("alice")));
    }
    // Rotated again in its grace: the grace does not grow, and the end of the grace is not taken for the life of the key.
    let third = ring.rotate(&first.made.id, HOUR * 2, None, NOW + 200).await.unwrap();
    assert_eq!((who(&ring, &first.key, NOW + 3700), third.made.expires), (Err(Stranger::Expired), Some(NOW + 200 + 86_400)));
    // Without a grace it ends at once.
    let fourth = ring.rotate(&second.made.id, Duration::ZERO, Some(NOW + 500), NOW + 300).await.unwrap();
    assert_eq!((who(&ring, &second.key, NOW + 300), fourth.made.expires), (Err(Stranger::Expired), Some(NOW + 500)));
}

#[tokio::test]
async fn keys_outlive_a_restart_and_a_crash_in_the_middle_of_a_write() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    let one = ring.make(wanted("alice"), NOW).await.unwrap();
    let before = fs::read(file(&folder)).unwrap();
    let two = ring.make(wanted("bob"), NOW).await.unwrap();
    let after = fs::read(file(&folder)).unwrap();
    drop(ring);
    // A crash before the rename leaves the old file, and beside it the new one, cut off anywhere.
    for cut in (0..=after.len()).step_by(7) {
        fs::write(file(&folder), &before).unwrap();
        fs::write(folder.path().join("keys.new"), &after[..cut]).unwrap();
        let ring = open(&folder).unwrap();
        assert_eq!((who(&ring, &one.key, NOW).as_deref(), who(&ring, &two.key, NOW)), (Ok("alice"), Err(Stranger::Unknown)));
    }
    // What was left there is in nobody's way.
    fs::set_permissions(folder.path().join("keys.new"), fs::Permissions::from_mode(0o644)).unwrap();
    let ring = open(&folder).unwrap();
    let three = ring.make(wanted("carol"), NOW).await.unwrap();
    drop(ring);
    let ring = open(&folder).unwrap();
    assert_eq!((who(&ring, &one.key, NOW).as_deref(), who(&ring, &three.key, NOW).as_deref()), (Ok("alice"), Ok("carol")));
    assert_eq!(fs::metadata(file(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_broken_file_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    let id = ring.make(wanted("alice"), NOW).await.unwrap().made.id.clone();
    drop(ring);
    let good = fs::read_to_string(file(&folder)).unwrap();
    let first = good[good.find("    {").unwrap()..good.rfind("    }").unwrap() + 5].to_owned();
    let twice = good.replace(&first, &format!("{first},\n{first}"));
    let cases = [
        (good[..good.len() / 2].to_owned(), "EOF"),
        (String::new(), "EOF"),
        (good.replace("\"version\": 1", "\"version\": 2"), "its form is 2"),
        (good.replace("\"revoked\": null", "\"revoked\": null, \"models\": []"), "unknown field `models`"),
        (good.replacen("\"sha256\": \"", "\"sha256\": \"x", 1), "not 64 hex digits"),
        (twice, "is there twice"),
    ];
    for (text, part) in cases {
        fs::write(file(&folder), &text).unwrap();
        let Err(error @ Error::Damaged { .. }) = open(&folder) else { panic!("accepted: {text}") };
        let said = error.to_string();
        assert!(said.contains(part) && said.contains("keys.json is damaged") && said.contains("move it away"), "{said}");
    }
    fs::write(file(&folder), good).unwrap();
    assert_eq!(open(&folder).unwrap().all()[0].id, id);
}

#[tokio::test]
async fn a_folder_belongs_to_one_process_and_a_closed_ring_still_knows_its_keys() {
    let folder = Folder::new();
    assert!(Keyring::open(folder.path(), Some("no API".into())).is_ok());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made where no keys can be");
    let ring = open(&folder).unwrap();
    let second = open(&folder).unwrap();
    assert!(matches!(second.make(wanted("alice"), NOW).await, Err(Error::Nowhere(why)) if why.contains("another process")), "without keys a second process may run, and make none");
    let key = ring.make(wanted("alice"), NOW).await.unwrap().key;
    assert!(matches!(open(&folder), Err(Error::InUse(_))));
    drop(ring);
    let closed = Keyring::open(folder.path(), Some("the admin API is off".into())).unwrap();
    assert_eq!(who(&closed, &key, NOW).as_deref(), Ok("alice"));
    assert!(matches!(closed.make(wanted("bob"), NOW).await, Err(Error::Nowhere(why)) if why == "the admin API is off"));
    assert!(matches!(open(&folder), Err(Error::InUse(_))), "nobody changes what this one has read");
}

#[tokio::test]
async fn a_key_that_cannot_be_kept_is_not_made() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    // A folder where the temporary file would be: it can neither be removed nor opened.
    fs::create_dir_all(folder.path().join("keys.new").join("x")).unwrap();
    assert!(matches!(ring.make(wanted("alice"), NOW).await, Err(Error::Io { .. })));
    assert!(ring.all().is_empty());
}

#[tokio::test]
async fn keys_that_ended_long_ago_are_forgotten() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    let old = ring.make(Wanted { expires: Some(NOW + 10), ..wanted("alice") }, NOW).await.unwrap();
    let month = REMEMBERED.as_secs();
    ring.make(wanted("alice"), NOW + month).await.unwrap();
    assert_eq!(ring.all().len(), 2);
    ring.make(wanted("alice"), NOW + month + 11).await.unwrap();
    assert_eq!((ring.all().len(), who(&ring, &old.key, NOW + month + 11)), (2, Err(Stranger::Unknown)));
}

#[tokio::test]
async fn a_change_that_has_begun_is_finished_though_nobody_waits_for_it() {
    let folder = Folder::new();
    let ring = open(&folder).unwrap();
    let turn = ring.turn.lock().await;
    let waiting = tokio::spawn({
        let ring = ring.clone();
        async move { ring.make(wanted("alice"), NOW).await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    waiting.abort();
    let _ = waiting.await;
    drop(turn);
    while ring.all().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(fs::read_to_string(file(&folder)).unwrap().contains(&ring.all()[0].id), "what is known is kept");
}

async fn replica(server: &Server) -> (Redis, Arc<Keyring>) {
    let redis = Redis::connect(&redis::Settings::new(server.url())).await.unwrap();
    let ring = Keyring::shared(redis.shelf("keys"));
    ring.refresh().await;
    (redis, ring)
}

#[tokio::test]
async fn replicas_share_keys_by_redis_and_lose_no_change_to_each_other() {
    let mut server = Server::durable();
    let ((_a, one), (_b, two)) = (replica(&server).await, replica(&server).await);
    let first = one.make(wanted("alice"), NOW).await.unwrap();
    assert_eq!(who(&two, &first.key, NOW), Err(Stranger::Unknown));
    two.refresh().await;
    assert_eq!(who(&two, &first.key, NOW).as_deref(), Ok("alice"));
    // Both change at the same time, from what they knew before.
    let (made, rotated, revoked) = tokio::join!(two.make(wanted("bob"), NOW), one.rotate(&first.made.id, HOUR, None, NOW), two.revoke(&first.made.id, NOW));
    let second = made.unwrap();
    revoked.unwrap();
    assert!(rotated.is_ok() || matches!(rotated, Err(Error::Ended(_))), "{rotated:?}");
    for ring in [&one, &two] {
        ring.refresh().await;
        assert_eq!((who(ring, &first.key, NOW), who(ring, &second.key, NOW).as_deref()), (Err(Stranger::Expired), Ok("bob")), "a revocation is never lost");
    }
    assert!(!server.say("HGETALL {trivium}:keys").contains(second.key.expose()));

    server.stop();
    one.refresh().await;
    assert_eq!(who(&one, &second.key, NOW).as_deref(), Ok("bob"), "what is known holds while Redis is away");
    assert!(matches!(one.make(wanted("carol"), NOW).await, Err(Error::Away)));
    server.again();
    let third = loop {
        match one.make(wanted("carol"), NOW).await {
            Ok(fresh) => break fresh,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    // One that is started then knows all of it.
    let (_c, three) = replica(&server).await;
    assert_eq!((who(&three, &second.key, NOW).as_deref(), who(&three, &third.key, NOW).as_deref(), who(&three, &first.key, NOW)), (Ok("bob"), Ok("carol"), Err(Stranger::Expired)));
    // A Redis that has lost its data knows nobody, and so does everyone who asks it.
    assert!(server.say("FLUSHALL").starts_with("+OK"));
    three.refresh().await;
    assert_eq!(who(&three, &second.key, NOW), Err(Stranger::Unknown));
    // What cannot be read lets nobody in and keeps nobody out.
    let fourth = three.make(wanted("dan"), NOW).await.unwrap();
    assert!(server.say("HSET {trivium}:keys key_odd nonsense :version odd").starts_with(':'));
    three.refresh().await;
    assert_eq!((three.all().len(), who(&three, &fourth.key, NOW).as_deref()), (1, Ok("dan")));
}
