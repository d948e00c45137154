# shellcheck shell=bash
# Packs layers into an image: an OCI layout that `docker load` reads as well.

# oci_tar DIR FILE...: the same files make the same bytes.
oci_tar() {
    tar --sort=name --format=gnu --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf - "${@:2}"
}

# oci_keep FILE: files a hard link to it under its digest, and prints the digest.
oci_keep() {
    local sum
    sum=$(sha256sum "$1" | cut -d' ' -f1)
    ln -f "$1" "$blobs/$sum"
    echo "$sum"
}
oci_descriptor() { printf '"digest":"sha256:%s","size":%d' "$1" "$(stat -c %s "$blobs/$1")"; }

# oci_image NAME:TAG CONFIG LAYER...: writes the image to stdout. CONFIG is the JSON of how to run it;
# layers are tar files, lowest first, on the file system of TMPDIR. IMAGE_GZIP=1: they are compressed, as registries
# keep them.
oci_image() (
    ref=$1 run=$2
    shift 2
    # Names are stored as the kubelet spells them out: app:1 is docker.io/library/app:1.
    [[ $ref == */* ]] || ref=library/$ref
    [[ ${ref%%/*} == *[.:]* || ${ref%%/*} == localhost ]] || ref=docker.io/$ref
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    blobs=$dir/image/blobs/sha256
    mkdir -p "$blobs"

    arch=$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
    ids='' descriptors='' files='' type=application/vnd.oci.image.layer.v1.tar
    [[ -z ${IMAGE_GZIP:-} ]] || type+=+gzip
    for file; do
        # An id is that of what is unpacked.
        ids+=${ids:+,}'"'sha256:$(sha256sum "$file" | cut -d' ' -f1)'"'
        if [[ -n ${IMAGE_GZIP:-} ]]; then
            gzip -nk "$file"
            file+=.gz
        fi
        sum=$(oci_keep "$file")
        descriptors+=${descriptors:+,}"{\"mediaType\":\"$type\","$(oci_descriptor "$sum")'}'
        files+=${files:+,}'"'blobs/sha256/$sum'"'
    done

    cat >"$dir/config" <<JSON
{"architecture":"$arch","os":"linux",
 "config":$run,
 "rootfs":{"type":"layers","diff_ids":[$ids]}}
JSON
    config=$(oci_keep "$dir/config")

    cat >"$dir/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
 "config":{"mediaType":"application/vnd.oci.image.config.v1+json",$(oci_descriptor "$config")},
 "layers":[$descriptors]}
JSON
    manifest=$(oci_keep "$dir/manifest")

    cat >"$dir/image/index.json" <<JSON
{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
 $(oci_descriptor "$manifest"),"annotations":{"io.containerd.image.name":"$ref","org.opencontainers.image.ref.name":"${ref##*:}"}}]}
JSON
    echo '{"imageLayoutVersion":"1.0.0"}' >"$dir/image/oci-layout"
    cat >"$dir/image/manifest.json" <<JSON
[{"Config":"blobs/sha256/$config","RepoTags":["$ref"],"Layers":[$files]}]
JSON
    oci_tar "$dir/image" blobs index.json manifest.json oci-layout
)

# scratch_image NAME:TAG BINARY [FILE=PATH...]: writes the image of a static binary to stdout: it lies in /
# and is what runs, as nobody; each FILE lies at PATH. IMAGE_ENV: its variables, as "NAME=VALUE","NAME=VALUE".
scratch_image() (
    ref=$1 binary=$2
    shift 2
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    mkdir "$dir/root"
    mkdir -m 1777 "$dir/root/tmp"
    install -m 0755 -t "$dir/root" "$binary"
    for pair; do
        mode=0644
        [[ ! -x ${pair%%=*} ]] || mode=0755
        install -D -m "$mode" "${pair%%=*}" "$dir/root/${pair#*=}"
    done
    find "$dir/root" -mindepth 1 -type d ! -name tmp -exec chmod 0755 {} +
    chmod 0755 "$dir/root"
    oci_tar "$dir/root" . >"$dir/layer"
    TMPDIR=$dir oci_image "$ref" \
        '{"User":"65534:65534","WorkingDir":"/","Env":['"${IMAGE_ENV:-}"'],"Entrypoint":["/'"${binary##*/}"'"]}' "$dir/layer"
)
