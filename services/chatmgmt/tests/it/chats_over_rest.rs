//! Chats as REST shows them, through the real wiring.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, device, phone};

#[tokio::test]
async fn chats_have_the_statuses_the_flag_and_the_shapes_of_rest() {
    let world = World::lenient().await;
    let ada = world.login(&phone(), &device()).await;
    let ben = world.login(&phone(), &device()).await;
    let direct = |with: &str| Some(json!({"type": "direct", "member_ids": [with]}));

    let made = world.send(&ada, Method::POST, "/api/v1/chats", direct(&ben.user)).await;
    assert_eq!((made.status, made.header("x-idempotent-replay")), (201, ""), "{made:?}");
    let again = world.send(&ben, Method::POST, "/api/v1/chats", direct(&ada.user)).await;
    assert_eq!((again.status, again.header("x-idempotent-replay")), (200, "true"), "{again:?}");
    assert_eq!(made.body, again.body);
    let chat = &made.body["data"];
    assert_eq!((&chat["type"], &chat["name"], &chat["member_count"]), (&json!("direct"), &Value::Null, &json!(2)));
    assert_eq!(chat["members"][0]["role"], "member");

    let group = json!({"type": "group", "name": "Sunday hike", "member_ids": [ben.user]});
    let group = world.send(&ada, Method::POST, "/api/v1/chats", Some(group)).await;
    assert_eq!(group.status, 201, "{group:?}");
    let id = group.body["data"]["chat_id"].as_str().expect("an id").to_owned();

    let list = world.get(&ben, "/api/v1/chats?limit=1").await;
    assert_eq!((list.status, &list.body["data"][0]["chat_id"]), (200, &json!(id)), "{list:?}");
    assert_eq!(list.body["data"][0]["my_membership"]["muted_until"], Value::Null);
    assert_eq!(
        (&list.body["data"][0]["pending_ack_count"], &list.body["data"][0]["last_message"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(list.body["pagination"]["has_more"], true);
    let cursor = list.body["pagination"]["next_cursor"].as_str().expect("a cursor");
    let rest = world.get(&ben, &format!("/api/v1/chats?cursor={cursor}")).await;
    assert_eq!(rest.body["data"][0]["other_member"]["user_id"], json!(ada.user), "{rest:?}");

    let shown = world.get(&ben, &format!("/api/v1/chats/{id}")).await;
    assert_eq!((shown.status, &shown.body["data"]["current_sequence"]), (200, &json!(0)), "{shown:?}");
    assert_eq!(shown.body["data"]["my_membership"]["last_acked_sequence"], 0);
    let history = world.get(&ben, &format!("/api/v1/chats/{id}/messages")).await;
    assert_eq!((history.status, &history.body["data"]), (200, &json!([])), "{history:?}");

    let left = world.send(&ben, Method::POST, &format!("/api/v1/chats/{id}/leave"), None).await;
    assert_eq!((left.status, &left.body), (204, &Value::Null), "{left:?}");
    let refused = world.get(&ben, &format!("/api/v1/chats/{id}/messages")).await;
    assert_eq!((refused.status, refused.code()), (403, "NOT_A_MEMBER"));
    let unknown = world.get(&ben, "/api/v1/chats/chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2").await;
    assert_eq!((unknown.status, unknown.code()), (403, "NOT_A_MEMBER"));
    let back = json!({"user_id": ben.user, "role": "admin"});
    let back = world.send(&ada, Method::POST, &format!("/api/v1/chats/{id}/members"), Some(back)).await;
    assert_eq!((back.status, &back.body["data"]["added_by"]), (201, &json!(ada.user)), "{back:?}");
    let removed = world.send(&ada, Method::DELETE, &format!("/api/v1/chats/{id}/members/{}", ben.user), None).await;
    assert_eq!(removed.status, 204, "{removed:?}");
}
