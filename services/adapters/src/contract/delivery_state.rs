//! `DeliveryState`: marks only rise.

use domain::{
    Millis,
    message::Sequence,
    ports::{
        DeliveryState,
        delivery_state::Watermark::{Acked, Read},
    },
};

use super::World;

pub(crate) async fn run(world: &World, state: &dyn DeliveryState) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    let steps = [(Acked, 50, 50), (Acked, 48, 50), (Read, 7, 7), (Acked, 52, 52), (Acked, 52, 52), (Read, 6, 7)];
    for (mark, to, expected) in steps {
        let stored = state.advance(alice, chat, mark, Sequence(to), Millis(1)).await.expect("stored");
        assert_eq!(stored, Sequence(expected), "{mark:?} to {to}");
    }
}
