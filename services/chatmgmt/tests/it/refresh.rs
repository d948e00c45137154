//! The life of a session's tokens.

use std::time::Duration;

use serde_json::json;

use crate::world::{Login, World, device, phone};

fn next(login: &Login, tokens: &serde_json::Value) -> Login {
    let text = |name: &str| tokens[name].as_str().expect("a text").to_owned();
    Login { access: text("access_token"), refresh: text("refresh_token"), ..login.clone() }
}

#[tokio::test]
async fn tokens_rotate_and_an_expired_access_token_is_enough() {
    let world = World::lenient().await;
    let login = world.login(&phone(), &device()).await;
    world.clock.advance(Duration::from_mins(61));
    let expired = world.get(&login, "/api/v1/users/me").await;
    assert_eq!((expired.status, &expired.body["error"]["details"]["reason"]), (401, &json!("token_expired")));

    let answer = world.refresh(&login).await;
    let tokens = &answer.body["data"]["tokens"];
    let golden = json!({"data": {"tokens": {
        "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
        "token_type": "Bearer", "expires_in": 3600,
    }}});
    assert_eq!((answer.status, &answer.body), (200, &golden));
    let second = next(&login, tokens);
    assert_ne!(second.refresh, login.refresh);
    assert_eq!(second.refresh.len(), 43);
    assert_eq!(world.get(&second, "/api/v1/users/me").await.status, 200);
    assert_eq!(world.refresh(&second).await.status, 200);
}

#[tokio::test]
async fn identical_refreshes_at_once_get_the_same_pair() {
    let world = World::lenient().await;
    let login = world.login(&phone(), &device()).await;
    let answers = futures_util::future::join_all((0..8).map(|_| world.refresh(&login))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(world.refresh(&login).await.body, answers[0].body);
    assert_eq!(world.refresh(&next(&login, &answers[0].body["data"]["tokens"])).await.status, 200);
}

#[tokio::test]
async fn an_old_token_that_comes_again_ends_the_session() {
    let world = World::lenient().await;
    let login = world.login(&phone(), &device()).await;
    let second = next(&login, &world.refresh(&login).await.body["data"]["tokens"]);
    world.clock.advance(Duration::from_millis(10_001));
    let reused = world.refresh(&login).await;
    assert_eq!((reused.status, reused.code()), (401, "INVALID_REFRESH_TOKEN"));
    assert_eq!(world.refresh(&second).await.status, 401);
    let revoked = world.get(&second, "/api/v1/users/me").await;
    assert_eq!((revoked.status, &revoked.body["error"]["details"]["reason"]), (401, &json!("token_revoked")));
}

#[tokio::test]
async fn a_refresh_needs_its_own_device_and_token() {
    let world = World::lenient().await;
    let login = world.login(&phone(), &device()).await;
    let elsewhere = world.refresh(&Login { device: device(), ..login.clone() }).await;
    assert_eq!((elsewhere.status, elsewhere.code()), (401, "DEVICE_MISMATCH"));
    let stranger = world.login(&phone(), &login.device).await;
    for refresh in [stranger.refresh.clone(), "x".repeat(43), "short".to_owned()] {
        let wrong = world.refresh(&Login { refresh, ..login.clone() }).await;
        assert_eq!((wrong.status, wrong.code()), (401, "INVALID_REFRESH_TOKEN"));
    }
    let without = world.post("/api/v1/auth/refresh", json!({"refresh_token": login.refresh})).await;
    assert_eq!((without.status, without.code()), (401, "UNAUTHORIZED"));
    assert_eq!(world.refresh(&login).await.status, 200);
}

#[tokio::test]
async fn a_session_ends_after_thirty_days() {
    let world = World::lenient().await;
    let login = world.login(&phone(), &device()).await;
    world.clock.advance(Duration::from_hours(30 * 24));
    let late = world.refresh(&login).await;
    assert_eq!((late.status, late.code()), (401, "INVALID_REFRESH_TOKEN"));
}

#[tokio::test]
async fn logout_ends_the_session_and_its_tokens() {
    let world = World::lenient().await;
    let login = world.login(&phone(), &device()).await;
    let second = next(&login, &world.refresh(&login).await.body["data"]["tokens"]);
    let post = reqwest::Method::POST;

    let wrong = world.send(&second, post.clone(), "/api/v1/auth/logout", Some(json!({"refresh_token": "x"}))).await;
    assert_eq!((wrong.status, wrong.code()), (401, "INVALID_REFRESH_TOKEN"));
    let body = json!({"refresh_token": second.refresh});
    let out = world.send(&second, post, "/api/v1/auth/logout", Some(body)).await;
    assert_eq!((out.status, &out.body), (204, &serde_json::Value::Null));

    for token in [&login, &second] {
        let refused = world.get(token, "/api/v1/users/me").await;
        assert_eq!((refused.status, refused.code()), (401, "UNAUTHORIZED"));
    }
    assert_eq!(world.refresh(&second).await.status, 401);
}
