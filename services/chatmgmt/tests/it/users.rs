//! Profiles, and contacts by phone.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::world::{World, device, phone};

#[tokio::test]
async fn a_profile_is_shown_renamed_and_seen_by_others_without_its_phone() {
    let world = World::lenient().await;
    let number = phone();
    let (me, other) = (world.login(&number, &device()).await, world.login(&phone(), &device()).await);
    let created_at = world.now();
    let golden = json!({"data": {
        "user_id": me.user, "phone_number": number, "display_name": null,
        "created_at": created_at, "updated_at": created_at,
    }});
    let shown = world.get(&me, "/api/v1/users/me").await;
    assert_eq!((shown.status, &shown.body), (200, &golden));

    world.clock.advance(Duration::from_secs(1));
    let named = world.send(&me, Method::PATCH, "/api/v1/users/me", Some(json!({"display_name": "Ainhoa R."}))).await;
    let golden = json!({"data": {
        "user_id": me.user, "phone_number": number, "display_name": "Ainhoa R.",
        "created_at": created_at, "updated_at": world.now(),
    }});
    assert_eq!((named.status, &named.body), (200, &golden));
    assert_eq!(world.get(&me, "/api/v1/users/me").await.body, golden);
    let unchanged = world.send(&me, Method::PATCH, "/api/v1/users/me", Some(json!({}))).await;
    assert_eq!((unchanged.status, &unchanged.body), (200, &golden));

    let seen = world.get(&other, &format!("/api/v1/users/{}", me.user)).await;
    let golden = json!({"data": {"user_id": me.user, "display_name": "Ainhoa R.", "created_at": created_at}});
    assert_eq!((seen.status, &seen.body), (200, &golden));

    for (name, code) in [("", "REQUIRED"), (" x", "INVALID"), ("a\u{7}", "INVALID"), (&"x".repeat(65), "TOO_LONG")] {
        let body = json!({"display_name": name});
        let refused = world.send(&me, Method::PATCH, "/api/v1/users/me", Some(body)).await;
        assert_eq!((refused.status, refused.code()), (400, "VALIDATION_ERROR"));
        let field = &refused.body["error"]["details"]["field_errors"][0];
        assert_eq!((&field["field"], &field["code"]), (&json!("display_name"), &json!(code)), "{name:?}");
    }
}

#[tokio::test]
async fn unknown_and_malformed_people_are_not_found() {
    let world = World::lenient().await;
    let me = world.login(&phone(), &device()).await;
    for id in ["user_01KJ3E28JT97KB6CQ643DZVMXX", "PHONE%23abc", "me%20", "chat_01KJ3E28JT97KB6CQ643DZVMXX"] {
        let answer = world.get(&me, &format!("/api/v1/users/{id}")).await;
        assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"), "{id}");
    }
}

#[tokio::test]
async fn contacts_are_found_by_phone_in_the_order_of_the_request() {
    let world = World::lenient().await;
    let (mine, theirs, nobodys) = (phone(), phone(), phone());
    let (me, other) = (world.login(&mine, &device()).await, world.login(&theirs, &device()).await);
    let body = json!({"phone_numbers": [theirs, nobodys, mine, theirs]});
    let found = world.send(&me, Method::POST, "/api/v1/users/lookup", Some(body)).await;
    let golden = json!({"data": {
        "users": [
            {"phone_number": theirs, "user_id": other.user, "display_name": null},
            {"phone_number": mine, "user_id": me.user, "display_name": null},
        ],
        "not_found": [nobodys],
    }});
    assert_eq!((found.status, &found.body), (200, &golden));

    let wrong = json!({"phone_numbers": [mine, "123"]});
    let refused = world.send(&me, Method::POST, "/api/v1/users/lookup", Some(wrong)).await;
    assert_eq!(refused.body["error"]["details"]["field_errors"][0]["field"], "phone_numbers[1]");
    let many: Vec<_> = (0..101).map(|n| format!("+1202556{n:04}")).collect();
    for numbers in [json!([]), json!(many)] {
        let body = json!({"phone_numbers": numbers});
        let refused = world.send(&me, Method::POST, "/api/v1/users/lookup", Some(body)).await;
        assert_eq!((refused.status, refused.code()), (400, "VALIDATION_ERROR"));
    }
}

#[tokio::test]
async fn lookups_are_limited() {
    let world = World::with(|limits| limits.lookup_per_minute = 2).await;
    let number = phone();
    let me = world.login(&number, &device()).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let body = json!({"phone_numbers": [number]});
        statuses.push(world.send(&me, Method::POST, "/api/v1/users/lookup", Some(body)).await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
}

#[tokio::test]
async fn nobody_gets_in_without_a_token() {
    let world = World::start().await;
    for (method, path) in [
        (Method::GET, "/api/v1/users/me"),
        (Method::PATCH, "/api/v1/users/me"),
        (Method::GET, "/api/v1/users/user_01KJ3E28JT97KB6CQ643DZVMXX"),
        (Method::POST, "/api/v1/users/lookup"),
        (Method::POST, "/api/v1/auth/logout"),
    ] {
        for token in [None, Some("nonsense"), Some("eyJhbGciOiJub25lIn0.e30.")] {
            let mut request = world.request(method.clone(), path);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = crate::world::Answer::of(request.send().await.expect("an answer")).await;
            assert_eq!((answer.status, answer.code()), (401, "UNAUTHORIZED"), "{method} {path}");
        }
    }
}
