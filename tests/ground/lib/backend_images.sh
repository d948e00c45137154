# shellcheck shell=bash
# Images of the backends for a cluster without a registry: of Debian packages, jars and a Go module.

VERSITYGW=v1.8.0

# debian LAYER PACKAGE...: a layer of the packages and all they depend on. Their scripts are not run.
debian() {
    local root=$WORK/$1 apt=$WORK/apt dir deb
    shift
    mkdir -p "$apt/debs/partial" "$root/etc" "$root"/usr/{bin,sbin,lib,lib64}
    for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$root/$dir"; done
    # With an empty status file nothing counts as installed.
    : >"$apt/status"
    apt-get -qq -y --no-install-recommends --download-only -o Dir::State::status="$apt/status" \
        -o Dir::Cache::archives="$apt/debs" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o APT::Sandbox::User=root install busybox-static "$@" >/dev/null
    for deb in "$apt"/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root"
    done
    rm -rf "$apt" "$root"/var/{cache,lib,log} \
        "$root"/usr/share/{bash-completion,doc,doc-base,fonts,info,lintian,locale,man,pixmaps}
    # Perl is there for the packages' scripts.
    rm -rf "$root"/usr/bin/perl* "$root"/usr/share/perl* "$root"/usr/lib/*/{perl*,libperl*}
    find "$root" -perm /6000 -type f -exec chmod a-s {} +
    mkdir -p "$root/tmp"
    chmod 1777 "$root/tmp"
    for dir in $("$root/bin/busybox" --list); do
        [[ -e $root/bin/$dir || -e $root/sbin/$dir ]] || ln -s busybox "$root/bin/$dir"
    done
    printf '%s\n' root:x:0:0::/:/bin/sh nobody:x:65534:65534::/tmp:/bin/sh >"$root/etc/passwd"
    printf '%s\n' root:x:0: nogroup:x:65534: >"$root/etc/group"
    for dir in "$root"/usr/lib/jvm/java-*-openjdk-*/bin/java; do
        [[ ! -f $dir || -L $root/bin/java ]] || ln -s "../..${dir#"$root"}" "$root/bin/java"
    done
    oci_tar "$root" . >"$root.layer"
    rm -rf "$root"
}

# image NAME:TAG LAYER...: the archive of an image, named as the image without its tag.
image() {
    local name=${1%%:*} ref=$1 layers=() layer
    shift
    for layer; do layers+=("$WORK/$layer.layer"); done
    oci_image "messaging.dev/$ref" '{"User":"65534:65534","WorkingDir":"/tmp",
        "Env":["PATH=/usr/local/bin:/usr/bin:/usr/sbin"]}' "${layers[@]}" >"$OUT/$name.tar"
}

make_images() {
    OUT=$1
    WORK=$1/work
    mkdir "$WORK"
    export TMPDIR=$WORK
    say 'making the images of the backends: a minute, once'
    apt-get -qq update
    debian redis-root redis-server redis-tools
    image redis:7.0 redis-root
    debian java default-jre-headless
    java_images
    mkdir -p "$WORK/objects/usr/local/bin" "$WORK/objects/tmp"
    chmod 1777 "$WORK/objects/tmp"
    GOBIN=$WORK/objects/usr/local/bin CGO_ENABLED=0 nice -n 5 "$GO" install -trimpath -ldflags '-s -w' \
        "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW"
    oci_tar "$WORK/objects" . >"$WORK/objects.layer"
    image objects:1 objects
    rm -rf "$WORK"
}

java_images() {
    local lib home=$WORK/dynamodb/home/dynamodblocal
    "$HERE/kafka.sh" build
    mkdir -p "$WORK/kafka/opt/kafka/libs" "$home/DynamoDBLocal_lib"
    install -m 0644 -t "$WORK/kafka/opt/kafka/libs" "$("$HERE/kafka.sh" lib)"/*.jar
    oci_tar "$WORK/kafka" . >"$WORK/kafka.layer"
    image kafka:4.1.1 java kafka

    "$HERE/dynamodb-local.sh" build
    lib=$("$HERE/dynamodb-local.sh" lib)
    install -m 0644 -t "$home/DynamoDBLocal_lib" "$lib"/*.jar "$lib"/*.so
    {
        echo 'Main-Class: software.amazon.dynamodb.services.local.main.ServerRunner'
        echo 'Class-Path: .'
        (cd "$home" && printf '  %s \n' DynamoDBLocal_lib/*.jar)
    } >"$WORK/manifest"
    jar --create --file "$home/DynamoDBLocal.jar" --manifest "$WORK/manifest" --date 2020-01-01T00:00:00Z
    oci_tar "$WORK/dynamodb" . >"$WORK/dynamodb.layer"
    image dynamodb-local:3.1.0 java dynamodb
}
