# What web and worker share: the database by psql, the queue by Redis's own protocol. No modules beyond perl-base.
use strict;
use warnings;
use IO::Socket::INET;

# psql takes these from the environment, so that no password stands in a command line.
$ENV{PGHOST}     = $ENV{DATABASE_HOST};
$ENV{PGPORT}     = $ENV{DATABASE_PORT};
$ENV{PGUSER}     = $ENV{DATABASE_USER};
$ENV{PGPASSWORD} = $ENV{DATABASE_PASS};
$ENV{PGDATABASE} = $ENV{DATABASE_NAME};

# Runs a statement; :'message' in it is the message, quoted by psql.
sub sql {
    my ($statement, $message) = @_;
    $message = '' unless defined $message;
    pipe my $reader, my $writer or die "pipe: $!\n";
    my $pid = open(my $out, '-|');
    die "fork: $!\n" unless defined $pid;
    if (!$pid) {
        close $writer;
        open STDIN, '<&', $reader or die "stdin: $!\n";
        exec 'psql', '-qAtX', '-v', 'ON_ERROR_STOP=1', '-v', "message=$message" or die "psql: $!\n";
    }
    close $reader;
    print $writer $statement;
    close $writer;
    my @lines = <$out>;
    close $out or die "the database refused: see the lines before\n";
    chomp @lines;
    return @lines;
}

# One command to Redis and its answer: a text, or the last text of a list, or undef for nothing.
sub redis {
    my @words  = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => "$ENV{QUEUE_HOST}:$ENV{QUEUE_PORT}", Timeout => 5) or die "the queue: $!\n";
    my $send   = sub { print $socket "*" . @_ . "\r\n" . join '', map { '$' . length($_) . "\r\n$_\r\n" } @_ };
    if (length($ENV{QUEUE_PASS} || '')) { $send->('AUTH', $ENV{QUEUE_PASS}); answer($socket) }
    $send->(@words);
    return answer($socket);
}

sub answer {
    my ($socket) = @_;
    my $line = <$socket>;
    die "the queue closed the connection\n" unless defined $line;
    $line =~ s/\r\n$//;
    my ($kind, $rest) = $line =~ /^(.)(.*)/;
    die "the queue: $rest\n" if $kind eq '-';
    return $rest if $kind eq '+' || $kind eq ':';
    return undef if $rest < 0;
    if ($kind eq '*') { my $last; $last = answer($socket) for 1 .. $rest; return $last }
    read $socket, my $text, $rest + 2;
    return substr $text, 0, $rest;
}

1;
