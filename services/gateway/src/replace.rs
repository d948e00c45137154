//! One connection a device: when it connects anew, its older connection ends, on whichever gateway that is.

use std::{sync::Arc, time::Duration};

use domain::{
    Error,
    ids::{ConnectionId, UserId},
    route::GatewayId,
};
use platform::{grpc::InternalToken, wire};
use proto::messaging::v1::{
    ReplaceRequest, ReplaceResponse, connections_client::ConnectionsClient, connections_server::Connections,
};
use tonic::{Request, Response, Status, transport::Endpoint};

use crate::{Gateway, closing::Reason};

/// How long another gateway may take. One that does not answer is gone, and its connections with it.
const WITHIN: Duration = Duration::from_secs(2);

/// Ends the older connections of a device, here at once, elsewhere soon.
pub fn older(gateway: &Arc<Gateway>, user: UserId, replaced: Vec<(ConnectionId, GatewayId)>) {
    for (connection, holder) in replaced {
        if holder == gateway.id {
            end(gateway, user, connection);
            continue;
        }
        let token = gateway.token.clone();
        let told = async move {
            if let Err(error) = tell(&token, &holder, user, connection).await {
                tracing::info!(
                    event = "connection.replace_failed",
                    connection.id = %connection,
                    error.message = %error,
                    "connection {connection} of {holder} is left to end"
                );
            }
        };
        drop(gateway.process.spawn_child(told));
    }
}

/// Whether it was here.
fn end(gateway: &Gateway, user: UserId, connection: ConnectionId) -> bool {
    let link = gateway.connections.find(user, connection);
    if let Some(link) = &link {
        link.close(Reason::DuplicateConnection);
    }
    link.is_some()
}

async fn tell(
    token: &InternalToken,
    holder: &GatewayId,
    user: UserId,
    connection: ConnectionId,
) -> Result<bool, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{}", holder.address));
    let endpoint = endpoint.map_err(|error| Status::internal(error.to_string()))?;
    let channel = endpoint.connect_timeout(WITHIN).timeout(WITHIN).connect_lazy();
    let request = ReplaceRequest {
        gateway_id: holder.to_string(),
        user_id: user.to_string(),
        connection_id: connection.to_string(),
    };
    let answer = ConnectionsClient::with_interceptor(channel, token.attach()).replace(request).await?;
    Ok(answer.into_inner().was_here)
}

/// The server of what other gateways tell.
pub struct Replace(pub Arc<Gateway>);

#[tonic::async_trait]
impl Connections for Replace {
    async fn replace(&self, request: Request<ReplaceRequest>) -> Result<Response<ReplaceResponse>, Status> {
        let request = request.into_inner();
        let refuse = |error: Error| wire::to_status(&error);
        let user = request.user_id.parse().map_err(refuse)?;
        let connection = request.connection_id.parse().map_err(refuse)?;
        let is_ours = request.gateway_id == self.0.id.to_string();
        Ok(Response::new(ReplaceResponse { was_here: is_ours && end(&self.0, user, connection) }))
    }
}
