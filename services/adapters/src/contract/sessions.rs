//! Sessions: a login is all or nothing, a rotation happens once.

use std::sync::Arc;

use domain::{
    Ids as _, Millis,
    ids::{SessionId, UserId},
    ports::{OtpRequests as _, Sessions as _, Users as _, otp_requests::Issued, sessions::Opened},
    session::{Proof, Session, TokenHash, TokenPair},
    user::{Phone, User},
};
use platform::clock::SystemIds;

use super::{
    On, World,
    otp_requests::{now, request},
};
use crate::dynamodb::{otp_requests::OtpRequests, sessions::Sessions, users::Users};

fn session(user: UserId, at: i64) -> Session {
    let ids = &SystemIds;
    Session {
        id: SessionId::new(ids),
        user,
        device: "a887ae22-1b35-411b-b272-3b9cef44c0d5".parse().expect("a UUID"),
        family: ids.ulid(),
        tokens: TokenPair { generation: 0, refresh: TokenHash([1; 32]), access_id: ids.ulid(), made_at: Millis(at) },
        previous: None,
        created_at: Millis(at),
        expires_at: Millis(at + 1_000_000),
    }
}

fn person(at: i64) -> User {
    User {
        id: UserId::new(&SystemIds),
        phone: Phone::new("+12025550100").expect("valid"),
        display_name: None,
        created_at: Millis(at),
        updated_at: Millis(at),
    }
}

async fn a_login_uses_its_code_up_and_registers_a_phone_once(on: On) {
    let world = World::start(on).await;
    let (codes, users) = (OtpRequests::new(world.store.clone()), Users::new(world.store.clone()));
    let sessions = Sessions::new(world.store.clone(), Arc::new(SystemIds));
    let now = now();
    let code = request(1, now);
    codes.issue(&code).await.expect("issued");
    let proof = Proof { phone: code.phone, mac: code.mac, at: Millis(now) };

    let newcomer = person(now);
    let first = session(newcomer.id, now);
    let other_code = Proof { mac: [9; 32], ..proof };
    assert_eq!(sessions.open(&other_code, &first, Some(&newcomer)).await.expect("an outcome"), Opened::CodeUsed);
    let too_late = Proof { at: code.expires_at, ..proof };
    assert_eq!(sessions.open(&too_late, &first, Some(&newcomer)).await.expect("an outcome"), Opened::CodeUsed);
    assert_eq!(users.user(newcomer.id).await.expect("read"), None);

    assert_eq!(sessions.open(&proof, &first, Some(&newcomer)).await.expect("an outcome"), Opened::Done);
    assert_eq!(users.user(newcomer.id).await.expect("read").as_ref(), Some(&newcomer));
    assert_eq!(users.by_phone(&[code.phone]).await.expect("read").get(&code.phone), Some(&newcomer.id));
    assert_eq!(sessions.session(first.id).await.expect("read").as_ref(), Some(&first));
    assert_eq!(sessions.sessions_of(newcomer.id).await.expect("read"), std::slice::from_ref(&first));

    let again = session(newcomer.id, now);
    assert_eq!(sessions.open(&proof, &again, None).await.expect("an outcome"), Opened::CodeUsed);

    // The phone asks for a code again; somebody who takes it for new is told, and the code stays good.
    let code = request(2, now + 1);
    assert_eq!(codes.issue(&code).await.expect("issued"), Issued::New);
    let proof = Proof { phone: code.phone, mac: code.mac, at: Millis(now + 1) };
    let double = person(now);
    let opened = sessions.open(&proof, &session(double.id, now), Some(&double)).await.expect("an outcome");
    assert_eq!(opened, Opened::PhoneTaken);
    assert_eq!(sessions.open(&proof, &first, None).await.expect("an outcome"), Opened::IdTaken);
    assert_eq!(sessions.open(&proof, &again, None).await.expect("an outcome"), Opened::Done);
    assert_eq!(users.user(double.id).await.expect("read"), None);
}

async fn tokens_rotate_once_from_each_state_and_the_last_one_is_kept(on: On) {
    let world = World::start(on).await;
    let codes = OtpRequests::new(world.store.clone());
    let sessions = Sessions::new(world.store.clone(), Arc::new(SystemIds));
    let now = now();
    let code = request(1, now);
    codes.issue(&code).await.expect("issued");
    let begun = session(UserId::new(&SystemIds), now);
    let proof = Proof { phone: code.phone, mac: code.mac, at: Millis(now) };
    assert_eq!(sessions.open(&proof, &begun, None).await.expect("an outcome"), Opened::Done);

    let next = |mark: u8| TokenPair {
        generation: 1,
        refresh: TokenHash([mark; 32]),
        access_id: SystemIds.ulid(),
        made_at: Millis(now + 5),
    };
    let pairs: Vec<TokenPair> = (10..18).map(next).collect();
    let races = pairs.iter().map(|pair| sessions.rotate(begun.id, begun.tokens.refresh, pair));
    let won: Vec<bool> =
        futures_util::future::join_all(races).await.into_iter().map(|won| won.expect("an outcome")).collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = pairs.iter().zip(&won).find(|(_, won)| **won).expect("one won").0;
    let rotated = sessions.session(begun.id).await.expect("read").expect("there");
    assert_eq!((&rotated.tokens, rotated.previous), (winner, Some(begun.tokens.refresh)));

    sessions.close(begun.id).await.expect("closed");
    sessions.close(begun.id).await.expect("closed again");
    assert_eq!(sessions.session(begun.id).await.expect("read"), None);
    assert!(!sessions.rotate(begun.id, winner.refresh, &next(20)).await.expect("an outcome"));
}

on_all_systems! {
    a_login_uses_its_code_up_and_registers_a_phone_once,
    tokens_rotate_once_from_each_state_and_the_last_one_is_kept,
}
