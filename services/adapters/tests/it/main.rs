//! What may be done to topics and tables, on Apache Kafka and on DynamoDB Local.

mod dynamodb_admin;
mod ground;
mod kafka_admin;
