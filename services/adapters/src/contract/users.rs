//! Users: found by id and by phone, renamed, and never mistaken for the rows that make phones unique.

use domain::{
    Millis,
    ids::UserId,
    ports::Users as _,
    user::{DisplayName, Phone, PhoneHash, User},
};
use platform::clock::SystemIds;

use super::{On, World};
use crate::dynamodb::{attributes::text, layout::Table, users::Users};

fn hash(number: u32) -> PhoneHash {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    PhoneHash(hash)
}

async fn registered(world: &World, number: u32) -> User {
    let user = User {
        id: UserId::new(&SystemIds),
        phone: Phone::new(&format!("+1202555{number:04}")).expect("valid"),
        display_name: number.is_multiple_of(2).then(|| DisplayName::new("Even").expect("valid")),
        created_at: Millis(1_700_000_000_123),
        updated_at: Millis(1_700_000_000_456),
    };
    let put = || world.store.client.put_item().table_name(world.store.table(Table::Users));
    put().set_item(Some(crate::dynamodb::users::row(&user))).send().await.expect("a row");
    let sentinel = put().item("user_id", text(format!("PHONE#{}", hash(number))));
    sentinel.item("canonical_user_id", text(user.id)).send().await.expect("a sentinel");
    user
}

async fn people_are_found_by_id_and_by_phone(on: On) {
    let world = World::start(on).await;
    let users = Users::new(world.store.clone());
    let (even, odd) = (registered(&world, 2).await, registered(&world, 3).await);
    assert_eq!(users.user(even.id).await.expect("read").as_ref(), Some(&even));
    assert_eq!(users.user(odd.id).await.expect("read").as_ref(), Some(&odd));
    let nobody = UserId::new(&SystemIds);
    assert_eq!(users.user(nobody).await.expect("read"), None);

    let mut found = users.users(&[odd.id, nobody, even.id, odd.id]).await.expect("read");
    found.sort_by_key(|user| user.updated_at.0 + i64::from(user.display_name.is_none()));
    assert_eq!(found, [even.clone(), odd.clone()]);
    assert!(users.users(&[]).await.expect("read").is_empty());

    let by_phone = users.by_phone(&[hash(2), hash(3), hash(4)]).await.expect("read");
    assert_eq!((by_phone.len(), by_phone.get(&hash(2)), by_phone.get(&hash(3))), (2, Some(&even.id), Some(&odd.id)));
}

async fn more_people_than_one_batch_holds_are_all_found(on: On) {
    let world = World::start(on).await;
    let users = Users::new(world.store.clone());
    let mut ids = Vec::new();
    for number in 0..103 {
        ids.push(registered(&world, number).await.id);
    }
    let mut found: Vec<UserId> = users.users(&ids).await.expect("read").into_iter().map(|user| user.id).collect();
    found.sort_unstable();
    ids.sort_unstable();
    assert_eq!(found, ids);
}

async fn only_people_who_exist_are_renamed(on: On) {
    let world = World::start(on).await;
    let users = Users::new(world.store.clone());
    let user = registered(&world, 3).await;
    let name = DisplayName::new("Ainhoa").expect("valid");
    let renamed = users.rename(user.id, &name, Millis(1_700_000_001_000)).await.expect("an outcome");
    let golden = User { display_name: Some(name.clone()), updated_at: Millis(1_700_000_001_000), ..user.clone() };
    assert_eq!(renamed, Some(golden.clone()));
    assert_eq!(users.user(user.id).await.expect("read"), Some(golden));
    let nobody = UserId::new(&SystemIds);
    assert_eq!(users.rename(nobody, &name, Millis(1)).await.expect("an outcome"), None);
    assert_eq!(users.user(nobody).await.expect("read"), None);
}

on_all_systems! {
    people_are_found_by_id_and_by_phone,
    more_people_than_one_batch_holds_are_all_found,
    only_people_who_exist_are_renamed,
}
