//! A gateway that only notes what it is sent, on a real socket.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use domain::route::GatewayId;
use platform::{Process, grpc::InternalToken};
use proto::messaging::v1::{
    DeliveryAnswer, DeliveryFrame,
    delivery_answer::Outcome,
    delivery_server::{Delivery, DeliveryServer},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// A running gateway.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) id: GatewayId,
    pub(crate) frames: Arc<Mutex<Vec<DeliveryFrame>>>,
    answers: Arc<Mutex<Answers>>,
}

/// How a gateway answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Delivered,
    Full,
    Unknown,
    /// As `Delivered`, one after the other, each after so long.
    Slowly(Duration),
    /// It ends the stream instead.
    Breaks,
}

impl Gateway {
    pub(crate) async fn start(process: &Process, token: &InternalToken) -> Self {
        let (listener, address) = process.bind("gateway", ([127, 0, 0, 1], 0).into()).await.expect("loopback");
        let gateway = Self {
            id: GatewayId { address: address.to_string().into(), epoch: "1".into() },
            frames: Arc::default(),
            answers: Arc::new(Mutex::new(Answers::Delivered)),
        };
        let service = DeliveryServer::with_interceptor(gateway.clone(), token.require());
        process.serve_grpc("gateway", listener, tonic::service::Routes::new(service));
        gateway
    }

    pub(crate) fn answer(&self, answers: Answers) {
        *self.answers.lock().expect("whole") = answers;
    }

    pub(crate) fn frames(&self) -> Vec<DeliveryFrame> {
        self.frames.lock().expect("whole").clone()
    }
}

#[tonic::async_trait]
impl Delivery for Gateway {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<DeliveryAnswer, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliveryFrame>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let gateway = self.clone();
        let answers = request.into_inner().then(move |frame| gateway.clone().take(frame));
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Gateway {
    async fn take(self, frame: Result<DeliveryFrame, Status>) -> Result<DeliveryAnswer, Status> {
        let frame = frame?;
        let mut answer = DeliveryAnswer { frame_id: frame.frame_id, ..DeliveryAnswer::default() };
        let answers = *self.answers.lock().expect("whole");
        if let Answers::Slowly(pause) = answers {
            tokio::time::sleep(pause).await;
        }
        if answers == Answers::Breaks {
            return Err(Status::unavailable("broken"));
        }
        self.frames.lock().expect("whole").push(frame);
        answer.set_outcome(match answers {
            Answers::Full => Outcome::Full,
            Answers::Unknown => Outcome::Unknown,
            Answers::Delivered | Answers::Slowly(_) | Answers::Breaks => Outcome::Delivered,
        });
        Ok(answer)
    }
}
