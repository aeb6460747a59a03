use super::*;

const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

fn at(secs: u64) -> Moment {
    Moment {
        tick: Tick::from_nanos(secs * 1_000_000_000),
        wall: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(secs),
    }
}

fn data(content: &[u8]) -> NewBlob {
    NewBlob {
        content: Arc::from(content),
        headers: Vec::new(),
        metadata: Metadata::new(),
        blocks: Vec::new(),
    }
}

fn with_container() -> Store {
    let mut store = Store::default();
    let created = store.create_container("locks", Metadata::new(), at(0));
    created.expect("there is none yet");
    store
}

/// A store with one blob, which is not leased.
fn with_blob() -> Store {
    let mut store = with_container();
    put(&mut store, &Access::default(), 0).expect("the container is there");
    store
}

fn put(store: &mut Store, access: &Access<'_>, secs: u64) -> Result<Stamp, Failure> {
    store.put_blob("locks", "job", data(b"new"), access, at(secs))
}

fn lease(store: &mut Store, action: LeaseAction, secs: u64) -> Result<LeaseOutcome, Failure> {
    store.lease_blob("locks", "job", action, &Access::default(), at(secs))
}

fn acquire(id: Uuid) -> LeaseAction {
    let term = Some(Duration::from_secs(15));
    LeaseAction::Acquire { id, term }
}

fn by(id: Option<Uuid>) -> Access<'static> {
    Access {
        lease_id: id,
        ..Access::default()
    }
}

fn code<T>(result: Result<T, Failure>) -> (u16, &'static str) {
    result.map_or_else(|failure| (failure.status, failure.code), |_| (200, ""))
}

#[derive(Debug, Clone, Copy)]
enum Situation {
    Absent,
    Unleased,
    Leased,
    Breaking,
    Broken,
    Expired,
}

use Situation::*;

/// The blob as described at 100 s; leased by A, if it is.
fn in_situation(situation: Situation) -> Store {
    if matches!(situation, Absent) {
        return with_container();
    }
    let mut store = with_blob();
    let period = match situation {
        Breaking => Some(10),
        Broken => Some(0),
        _ => None,
    };
    match situation {
        Leased | Breaking | Broken => drop(lease(&mut store, acquire(A), 95)),
        Expired => drop(lease(&mut store, acquire(A), 50)),
        Absent | Unleased => {}
    }
    if let Some(period) = period.map(Duration::from_secs) {
        let action = LeaseAction::Break {
            period: Some(period),
        };
        lease(&mut store, action, 95).expect("it is leased");
    }
    store
}

#[test]
fn put_if_none_match_star_answers_as_the_service() {
    #[rustfmt::skip]
    let table = [
        (Absent, None, (200, "")),
        (Absent, Some(A), (200, "")),
        (Unleased, None, (409, "BlobAlreadyExists")),
        (Unleased, Some(A), (412, "LeaseNotPresentWithBlobOperation")),
        (Leased, Some(A), (200, "")),
        (Leased, Some(B), (412, "LeaseIdMismatchWithBlobOperation")),
        (Leased, None, (412, "LeaseIdMissing")),
        (Breaking, Some(A), (200, "")),
        (Breaking, None, (412, "LeaseIdMissing")),
        (Broken, Some(A), (412, "LeaseLost")),
        (Broken, None, (409, "BlobAlreadyExists")),
        (Expired, Some(A), (412, "LeaseLost")),
        (Expired, None, (409, "BlobAlreadyExists")),
    ];
    for (situation, id, expected) in table {
        let mut store = in_situation(situation);
        let access = Access {
            if_none_match: Some("*"),
            ..by(id)
        };
        let done = code(put(&mut store, &access, 100));
        assert_eq!(done, expected, "{situation:?} {id:?}");
    }
}

#[test]
fn writes_and_reads_answer_as_the_service() {
    #[rustfmt::skip]
    let table = [
        (Absent, None, (404, "BlobNotFound"), (404, "BlobNotFound")),
        (Unleased, None, (200, ""), (200, "")),
        (Unleased, Some(A), (412, "LeaseNotPresentWithBlobOperation"), (412, "LeaseNotPresentWithBlobOperation")),
        (Leased, None, (412, "LeaseIdMissing"), (200, "")),
        (Leased, Some(A), (200, ""), (200, "")),
        (Leased, Some(B), (412, "LeaseIdMismatchWithBlobOperation"), (412, "LeaseIdMismatchWithBlobOperation")),
        (Breaking, Some(A), (200, ""), (200, "")),
        (Breaking, None, (412, "LeaseIdMissing"), (200, "")),
        (Broken, None, (200, ""), (200, "")),
        (Broken, Some(A), (412, "LeaseLost"), (412, "LeaseLost")),
        (Expired, None, (200, ""), (200, "")),
        (Expired, Some(A), (412, "LeaseLost"), (412, "LeaseLost")),
    ];
    for (situation, id, written, read) in table {
        let access = by(id);
        let name = format!("{situation:?} {id:?}");

        let mut store = in_situation(situation);
        let done = store.set_blob_metadata("locks", "job", Metadata::new(), &access, at(100));
        assert_eq!(code(done), written, "set metadata, {name}");

        let mut store = in_situation(situation);
        let done = store.delete_blob("locks", "job", &access, at(100));
        assert_eq!(code(done), written, "delete, {name}");

        let mut store = in_situation(situation);
        let done = store.blob("locks", "job", &access, at(100));
        assert_eq!(code(done), read, "read, {name}");

        if !matches!(situation, Absent) {
            let done = code(put(&mut in_situation(situation), &access, 100));
            assert_eq!(done, written, "put, {name}");
        }
    }
}

#[test]
fn write_after_expiry_ends_the_holders_right_to_renew() {
    let renew = LeaseAction::Renew { id: A };
    let mismatch = (409, "LeaseIdMismatchWithLeaseOperation");

    let mut store = in_situation(Expired);
    assert_eq!(code(lease(&mut store, renew, 100)), (200, ""));

    let mut store = in_situation(Expired);
    put(&mut store, &Access::default(), 100).expect("the lease has expired");
    assert_eq!(code(lease(&mut store, renew, 100)), mismatch);

    let mut store = in_situation(Expired);
    lease(&mut store, acquire(B), 90).expect("the lease has expired");
    lease(&mut store, LeaseAction::Release { id: B }, 91).expect("it is leased");
    assert_eq!(code(lease(&mut store, renew, 100)), mismatch);
}

#[test]
fn put_under_a_lease_keeps_the_lease() {
    let mut store = in_situation(Leased);
    put(&mut store, &by(Some(A)), 100).expect("A holds it");
    let again = code(put(&mut store, &by(None), 100));
    assert_eq!(again, (412, "LeaseIdMissing"));
}

#[test]
fn conditions_on_etags_and_dates_are_those_of_the_service() {
    const STALE: &str = "\"0x8D0000000000000\"";
    let mut store = with_container();
    let stamp = put(&mut store, &Access::default(), 50).expect("the container is there");
    let (etag, bare) = (stamp.etag(), stamp.bare_etag());
    let date = |secs| Some(at(secs).wall);
    let none = Access::default();
    #[rustfmt::skip]
    let table = [
        (Access { if_match: Some("*"), ..none }, 200, 200),
        (Access { if_match: Some(&etag), ..none }, 200, 200),
        (Access { if_match: Some(&bare), ..none }, 412, 412),
        (Access { if_match: Some(STALE), ..none }, 412, 412),
        (Access { if_match: Some("garbage"), ..none }, 412, 412),
        (Access { if_none_match: Some(STALE), ..none }, 200, 200),
        (Access { if_none_match: Some(&etag), ..none }, 412, 304),
        (Access { if_modified_since: date(49), ..none }, 200, 200),
        (Access { if_modified_since: date(50), ..none }, 412, 304),
        (Access { if_unmodified_since: date(50), ..none }, 200, 200),
        (Access { if_unmodified_since: date(49), ..none }, 412, 412),
    ];
    for (access, written, read) in table {
        let expected = |status| (status, if status == 200 { "" } else { "ConditionNotMet" });
        let done = store.blob("locks", "job", &access, at(100)).map(drop);
        assert_eq!(code(done), expected(read), "read, {access:?}");
        let action = acquire(A);
        let done = store.lease_blob("locks", "job", action, &access, at(100));
        assert_eq!(code(done), expected(written), "lease, {access:?}");
        let _ = lease(&mut store, LeaseAction::Release { id: A }, 100);
        if written != 200 {
            let done = code(put(&mut store, &access, 100));
            assert_eq!(done, expected(written), "put, {access:?}");
        }
    }
}

#[test]
fn put_with_if_match_on_an_absent_blob_fails() {
    let access = Access {
        if_match: Some("*"),
        ..Access::default()
    };
    let done = code(put(&mut with_container(), &access, 0));
    assert_eq!(done, (412, "ConditionNotMet"));
}

#[test]
fn lease_actions_leave_etag_and_date_alone_and_writes_change_them() {
    let mut store = with_blob();
    let before = store
        .blob("locks", "job", &by(None), at(1))
        .expect("it is there")
        .stamp;
    let done = lease(&mut store, acquire(A), 5).expect("it is free");
    assert_eq!(done.stamp.etag(), before.etag());
    assert_eq!(done.stamp.modified, before.modified);
    let written = put(&mut store, &by(Some(A)), 5).expect("A holds it");
    assert_ne!(written.etag(), before.etag());
    assert_eq!(written.modified, at(5).wall);
}

#[test]
fn etags_differ_when_the_clock_stands_still() {
    let mut store = with_blob();
    let first = put(&mut store, &by(None), 7).expect("it is free").etag();
    let second = put(&mut store, &by(None), 7).expect("it is free").etag();
    assert_ne!(first, second);
    assert!(first.starts_with("\"0x8") && first.len() == 19, "{first}");
}

#[test]
fn deleted_container_keeps_its_name_for_30_seconds() {
    let create =
        |store: &mut Store, secs| code(store.create_container("locks", Metadata::new(), at(secs)));
    let delete = |store: &mut Store, secs| {
        code(store.delete_container("locks", &Access::default(), at(secs)))
    };
    let mut store = with_blob();
    assert_eq!(create(&mut store, 1), (409, "ContainerAlreadyExists"));
    assert_eq!(delete(&mut store, 100), (200, ""));
    assert_eq!(delete(&mut store, 100), (200, ""));
    let done = code(lease(&mut store, acquire(A), 101));
    assert_eq!(done, (404, "ContainerNotFound"));
    assert_eq!(create(&mut store, 129), (409, "ContainerBeingDeleted"));
    assert_eq!(delete(&mut store, 130), (404, "ContainerNotFound"));
    assert_eq!(create(&mut store, 130), (200, ""));
    let done = code(store.blob("locks", "job", &by(None), at(131)));
    assert_eq!(done, (404, "BlobNotFound"));
}

#[test]
fn container_lease_guards_its_deletion() {
    let mut store = with_container();
    let leased = store.lease_container("locks", acquire(A), &by(None), at(0));
    leased.expect("it is free");
    let table = [
        (None, 1, (412, "LeaseIdMissing")),
        (Some(B), 1, (412, "LeaseIdMismatchWithContainerOperation")),
        (Some(A), 15, (412, "LeaseLost")),
        (None, 15, (200, "")),
    ];
    for (id, secs, expected) in table {
        let done = code(store.delete_container("locks", &by(id), at(secs)));
        assert_eq!(done, expected, "{id:?} at {secs} s");
    }
}

#[test]
fn set_container_metadata_needs_no_id_but_the_right_one() {
    let mut store = with_container();
    let leased = store.lease_container("locks", acquire(A), &by(None), at(0));
    leased.expect("it is free");
    let mut set = |id| {
        let metadata = Metadata::new();
        code(store.set_container_metadata("locks", metadata, &by(id), at(1)))
    };
    assert_eq!(set(None), (200, ""));
    assert_eq!(set(Some(A)), (200, ""));
    assert_eq!(set(Some(B)), (412, "LeaseIdMismatchWithContainerOperation"));
}

#[test]
fn list_goes_on_where_its_page_ended() {
    let mut store = with_container();
    for name in ["a/1", "a/2", "a/3", "b", "Z"] {
        let put = store.put_blob("locks", name, data(b""), &by(None), at(0));
        put.expect("it is free");
    }
    let mut pages = |prefix, from, limit| {
        let page = store
            .list("locks", prefix, "", from, limit)
            .expect("it is there");
        let names: Vec<_> = page.entries.iter().map(|(name, _)| *name).collect();
        (names.join(" "), page.next.unwrap_or_default().to_owned())
    };
    let expect = |names: &str, next: &str| (names.to_owned(), next.to_owned());
    assert_eq!(pages("", "", 9), expect("Z a/1 a/2 a/3 b", ""));
    assert_eq!(pages("a/", "", 2), expect("a/1 a/2", "a/3"));
    assert_eq!(pages("a/", "a/3", 2), expect("a/3", ""));
    assert_eq!(pages("c", "", 2), expect("", ""));
    let done = code(store.list("none", "", "", "", 1));
    assert_eq!(done, (404, "ContainerNotFound"));
}
