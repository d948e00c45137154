//! The REST operations, as the `google.api.http` annotations of the protos have them.

use anyhow::Context as _;
use http::{Method, uri::PathAndQuery};
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor, Value};

/// One REST operation and the RPC behind it.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// HTTP method.
    pub(super) method: Method,
    /// Path with `{field}` segments.
    pub(super) path: String,
    /// Where the fields that are not in the path stand.
    pub(super) source: Source,
    /// `/package.Service/Method`.
    pub(super) rpc: PathAndQuery,
    /// The RPC's request.
    pub(super) input: MessageDescriptor,
    /// The RPC's response.
    pub(super) output: MessageDescriptor,
}

/// Where the fields of a request stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the query.
    Query,
    /// In a JSON body.
    Body,
}

/// Every annotated method of those descriptors.
///
/// # Errors
/// When an annotation is of a form that is not served here.
pub(super) fn read(descriptors: &[u8]) -> anyhow::Result<Vec<Operation>> {
    let pool = DescriptorPool::decode(descriptors).context("the compiled descriptors can't be read")?;
    let annotation =
        pool.get_extension_by_name("google.api.http").context("the descriptors lack the extension google.api.http")?;
    let mut operations = Vec::new();
    for service in pool.services() {
        for method in service.methods() {
            let options = method.options();
            if !options.has_extension(&annotation) {
                continue;
            }
            let rule = options.get_extension(&annotation).into_owned();
            let operation = operation(service.full_name(), &method, &rule);
            operations.push(operation.with_context(|| format!("the HTTP rule of {}", method.full_name()))?);
        }
    }
    Ok(operations)
}

fn operation(service: &str, method: &MethodDescriptor, rule: &Value) -> anyhow::Result<Operation> {
    let rule = rule.as_message().context("is not a message")?;
    let (verb, path) = [
        ("get", Method::GET),
        ("post", Method::POST),
        ("put", Method::PUT),
        ("patch", Method::PATCH),
        ("delete", Method::DELETE),
    ]
    .into_iter()
    .find_map(|(field, verb)| {
        let set = rule.has_field_by_name(field);
        let path = rule.get_field_by_name(field)?.as_str()?.to_owned();
        set.then_some((verb, path))
    })
    .context("names no method")?;
    let body = rule.get_field_by_name("body").and_then(|body| body.as_str().map(str::to_owned)).unwrap_or_default();
    let source = match body.as_str() {
        "" => Source::Query,
        "*" => Source::Body,
        other => anyhow::bail!("has the body {other}; only `*` is served"),
    };
    let input = method.input();
    for field in fields_of(&path) {
        anyhow::ensure!(input.get_field_by_name(field).is_some(), "names the unknown field {field}");
    }
    let rpc = PathAndQuery::try_from(format!("/{service}/{}", method.name())).context("has no path")?;
    Ok(Operation { method: verb, path, source, rpc, input, output: method.output() })
}

fn fields_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_annotated_method_is_an_operation() {
        let operations = read(proto::DESCRIPTORS).expect("readable");
        let find = |rpc: &str| operations.iter().find(|operation| operation.rpc.as_str() == rpc).expect(rpc);

        let request = find("/messaging.v1.Auth/RequestOtp");
        assert_eq!((&request.method, request.path.as_str()), (&Method::POST, "/api/v1/auth/request-otp"));
        assert_eq!(request.source, Source::Body);

        let remove = find("/messaging.v1.Chats/RemoveMember");
        assert_eq!(remove.method, Method::DELETE);
        assert_eq!(remove.path, "/api/v1/chats/{chat_id}/members/{user_id}");
        assert_eq!(remove.source, Source::Query);
    }
}
