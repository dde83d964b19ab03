package bftws.judge;

import java.util.ArrayList;
import java.util.List;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import org.apache.wss4j.common.crypto.Merlin;
import org.apache.wss4j.common.ext.WSPasswordCallback;
import org.apache.wss4j.dom.WSDataRef;
import org.apache.wss4j.dom.engine.WSSecurityEngine;
import org.apache.wss4j.dom.engine.WSSecurityEngineResult;
import org.apache.wss4j.dom.handler.RequestData;
import org.apache.wss4j.dom.handler.WSHandlerResult;
import org.w3c.dom.Element;

/** A stock WSS4J, every check at its default, given the keys of a recording. */
final class Verifier {
    private final Keys keys;
    private final Merlin certificates = new Merlin();

    Verifier(Keys keys) {
        this.keys = keys;
        certificates.setKeyStore(keys.certificates());
        certificates.setTrustStore(keys.certificates());
    }

    String version() {
        return String.valueOf(WSSecurityEngine.class.getPackage().getImplementationVersion());
    }

    /** Verifies all signatures, and that one covers all; how many. Throws where it does not. */
    int verify(Envelope envelope) throws Exception {
        List<WSSecurityEngineResult> signed = results(envelope);
        covered(envelope, signed);
        return signed.size();
    }

    /** Verifies all signatures, whatever they cover. */
    List<WSSecurityEngineResult> results(Envelope envelope) throws Exception {
        RequestData data = new RequestData();
        data.setSigVerCrypto(certificates);
        data.setCallbackHandler(this::secret);
        WSHandlerResult result =
                new WSSecurityEngine().processSecurityHeader(envelope.document(), data);
        return result.getResults().stream()
                .filter(each -> each.get(WSSecurityEngineResult.TAG_DATA_REF_URIS) != null)
                .toList();
    }

    /** One signature must cover every header block but Security, Body, and each other signature. */
    private static void covered(Envelope envelope, List<WSSecurityEngineResult> signed) {
        List<Element> wanted = new ArrayList<>(envelope.blocks());
        wanted.remove(envelope.security());
        wanted.add(envelope.body());
        List<Element> signatures = Envelope.children(envelope.security()).stream()
                .filter(e -> "Signature".equals(e.getLocalName())).toList();
        if (signed.size() != signatures.size()) {
            throw new IllegalStateException(
                    signatures.size() + " signatures, " + signed.size() + " verified");
        }
        for (WSSecurityEngineResult each : signed) {
            List<Element> covered = new ArrayList<>();
            for (Object ref : (List<?>) each.get(WSSecurityEngineResult.TAG_DATA_REF_URIS)) {
                covered.add(((WSDataRef) ref).getProtectedElement());
            }
            long others = signatures.stream().filter(covered::contains).count();
            if (covered.containsAll(wanted) && others == signatures.size() - 1) {
                return;
            }
        }
        throw new IllegalStateException("no signature covers all header blocks, Body and signatures");
    }

    private void secret(Callback[] callbacks) throws UnsupportedCallbackException {
        for (Callback callback : callbacks) {
            if (!(callback instanceof WSPasswordCallback wanted)) {
                throw new UnsupportedCallbackException(callback);
            }
            byte[] key = keys.hmac().get(wanted.getIdentifier());
            if (key != null) {
                wanted.setKey(key);
            }
        }
    }
}
