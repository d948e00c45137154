//! `Incarnations`: of several who would claim a lease one succeeds, and its owner learns of it.

use domain::{
    Millis,
    ports::Incarnations,
    publisher::{Claim, Incarnation, Lease, Slot},
};
use platform::clock::SystemIds;

pub(crate) async fn run(incarnations: &dyn Incarnations) {
    let [owner, first, second] = [(); 3].map(|()| Incarnation::new(&SystemIds));
    let lease = Lease { incarnation: owner, expires_at: Millis(100), oldest_slot: Slot(3), claim: None };
    incarnations.open(&lease).await.expect("opened");
    assert_eq!(incarnations.list().await.expect("read"), std::slice::from_ref(&lease));

    assert!(incarnations.renew(owner, Millis(200), Slot(4)).await.expect("renewed"));
    let claim = Claim { by: first, until: Millis(300) };
    assert!(!incarnations.claim(&lease, claim).await.expect("answered"), "it was renewed since it was seen");

    let seen = incarnations.list().await.expect("read").remove(0);
    assert_eq!((seen.expires_at, seen.oldest_slot), (Millis(200), Slot(4)));
    assert!(incarnations.claim(&seen, claim).await.expect("answered"));
    assert!(!incarnations.claim(&seen, Claim { by: second, ..claim }).await.expect("answered"), "one succeeds");
    assert!(!incarnations.renew(owner, Millis(400), Slot(4)).await.expect("answered"), "its owner lost it");

    let claimed = incarnations.list().await.expect("read").remove(0);
    assert_eq!(claimed.claim, Some(claim));
    let later = Claim { by: second, until: Millis(500) };
    assert!(incarnations.claim(&claimed, later).await.expect("answered"), "a claim can be taken over too");
    incarnations.close(&claimed).await.expect("answered");
    assert_eq!(incarnations.list().await.expect("read").len(), 1, "who lost the claim can't close it");
    incarnations.close(&Lease { claim: Some(later), ..claimed }).await.expect("closed");
    assert!(incarnations.list().await.expect("read").is_empty());
    assert!(!incarnations.renew(owner, Millis(400), Slot(4)).await.expect("answered"), "closed is lost too");
    incarnations.close(&lease).await.expect("repeating it is harmless");
}
