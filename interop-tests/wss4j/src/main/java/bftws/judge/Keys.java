package bftws.judge;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.Base64;
import java.util.Map;
import java.util.TreeMap;

/** What keys.json of a recording holds. */
record Keys(Map<String, byte[]> hmac, KeyStore certificates) {
    static Keys read(Path file) throws Exception {
        JsonObject json = JsonParser.parseString(Files.readString(file)).getAsJsonObject();
        Map<String, byte[]> hmac = new TreeMap<>();
        for (Map.Entry<String, JsonElement> key : json.getAsJsonObject("hmac").entrySet()) {
            hmac.put(key.getKey(), octets(key));
        }
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        for (Map.Entry<String, JsonElement> entry : json.getAsJsonObject("certificates").entrySet()) {
            Certificate read = factory.generateCertificate(new ByteArrayInputStream(octets(entry)));
            store.setCertificateEntry(entry.getKey(), read);
        }
        return new Keys(hmac, store);
    }

    private static byte[] octets(Map.Entry<String, JsonElement> entry) {
        return Base64.getDecoder().decode(entry.getValue().getAsString());
    }
}
