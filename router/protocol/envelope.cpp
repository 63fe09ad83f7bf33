#include "router/wire.hpp"

namespace yumoe {
namespace {

Digest signed_digest(const Envelope& envelope) {
  const std::uint64_t numbers[] = {kProtocolVersion, envelope.sequence,
                                   static_cast<std::uint64_t>(envelope.time.value)};
  return Digester()
      .update(as_bytes("yumoe envelope"))
      .update(as_bytes(std::span<const std::uint64_t>(numbers)))
      .update(envelope.challenge)
      .update(envelope.body)
      .finish();
}

Bytes write_envelope(const Envelope& envelope, bool with_signature) {
  return wire::write_message<wire::Envelope>([&](wire::Envelope::Builder out) {
    out.setVersion(kProtocolVersion);
    out.setSequence(envelope.sequence);
    out.setTimeMs(envelope.time.value);
    out.setBody(wire::data(envelope.body));
    if (!with_signature) return;
    out.setKeyType(static_cast<std::uint8_t>(envelope.sender.type));
    out.setSender(wire::data(envelope.sender.bytes));
    out.setChallenge(wire::data(envelope.challenge));
    out.setSignature(wire::data(envelope.signature));
  });
}

}  // namespace

Bytes seal(const Keypair& keys, const Nonce& challenge, std::uint64_t sequence, TimeMs time,
           Bytes body) {
  Envelope envelope{keys.public_key(), challenge, sequence, time, std::move(body), {}};
  envelope.signature = keys.sign(signed_digest(envelope).bytes);
  return write_envelope(envelope, true);
}

Bytes seal_unsigned(std::uint64_t sequence, TimeMs time, Bytes body) {
  return write_envelope({{}, {}, sequence, time, std::move(body), {}}, false);
}

Envelope open_envelope(ByteView bytes) {
  return wire::read_message<wire::Envelope>(bytes, [](wire::Envelope::Reader in) {
    if (in.getVersion() != kProtocolVersion) {
      throw Error(ErrorCode::version_mismatch,
                  "message of protocol " + std::to_string(in.getVersion()) +
                      ", this program speaks " + std::to_string(kProtocolVersion) +
                      ": update the older side");
    }
    Envelope envelope;
    envelope.sequence = in.getSequence();
    envelope.time = {in.getTimeMs()};
    const auto body = in.getBody();
    envelope.body = Bytes(body.begin(), body.end());
    if (in.getSignature().size() == 0) return envelope;
    if (in.getKeyType() > 1) wire::malformed("unknown key type");
    envelope.sender = {static_cast<KeyType>(in.getKeyType()),
                       wire::array_of<32>(in.getSender(), "sender")};
    envelope.challenge = wire::array_of<32>(in.getChallenge(), "challenge");
    envelope.signature = wire::array_of<64>(in.getSignature(), "signature");
    return envelope;
  });
}

bool is_signed(const Envelope& envelope) {
  return verify(envelope.sender, signed_digest(envelope).bytes, envelope.signature);
}

Digest digest_of_receipt(std::string_view run, const PublicKey& hotkey, const Receipt& receipt) {
  const std::uint64_t numbers[] = {static_cast<std::uint64_t>(receipt.kind), receipt.round.value,
                                   static_cast<std::uint64_t>(receipt.time.value)};
  return Digester()
      .update(as_bytes("yumoe receipt"))
      .update(as_bytes(std::span<const std::uint64_t>(numbers)))
      .update(hotkey.bytes)
      .update(receipt.digest.bytes)
      .update(as_bytes(run))
      .finish();
}

Digest commitment_of(const PublicKey& hotkey, ByteView contribution) {
  return Digester().update(hotkey.bytes).update(contribution).finish();
}

}  // namespace yumoe
